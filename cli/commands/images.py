"""`crisp images`, `crisp import`, `crisp rmi`: the node's image store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, exits
from cli.arguments import Output, session
from cli.form import Form, note, say_json, say_table, short, size
from cli.session import READ_TIMEOUT, Session
from oci.errors import Absent, CrispError

if TYPE_CHECKING:
    from api.proto import cri_pb2

IMPORT_TIMEOUT = 3600.0
"""Seconds: a large archive on a slow disk."""


def register(app: typer.Typer) -> None:
    app.command()(images)
    app.command("import")(import_)
    app.command()(rmi)


def images(context: typer.Context, output: Output = Form.TABLE) -> None:
    """List images."""
    from api.proto import cri_pb2

    listed = session(context).any_realm.image.ListImages(cri_pb2.ListImagesRequest(), timeout=READ_TIMEOUT)
    found = sorted(listed.images, key=_sort_key)
    if output is Form.JSON:
        say_json([_plain(image) for image in found])
        return
    rows = []
    for image in found:
        for name in image.repo_tags or list(image.repo_digests[:1]) or ["<none>"]:
            rows.append([name, short(image.id), size(image.size), "yes" if image.pinned else ""])
    say_table(("IMAGE", "ID", "SIZE", "PINNED"), rows)


def _sort_key(image: cri_pb2.Image) -> tuple[list[str], str]:
    return sorted(image.repo_tags) or list(image.repo_digests), image.id


def _plain(image: cri_pb2.Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "tags": list(image.repo_tags),
        "digests": list(image.repo_digests),
        "size": image.size,
        "pinned": image.pinned,
    }


def import_(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A tar file or a directory.")],
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Instead of the names in the archive; may be repeated."),
    ] = None,
    output: Output = Form.TABLE,
) -> None:
    """Put an image of the file system into the store: an OCI layout or a docker-archive."""
    from api.proto import admin_pb2

    if not path.exists():
        raise Absent(f"{path} does not exist on this node")
    request = admin_pb2.ImportRequest(path=str(path.resolve()), names=names or [])
    done = session(context).admin.Import(request, timeout=IMPORT_TIMEOUT)
    if output is Form.JSON:
        say_json([{"id": image.id, "names": list(image.names)} for image in done.images])
        return
    for image in done.images:
        print(f"{', '.join(image.names) or '<none>'}  {image.id}")


def rmi(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Names or ids.", autocompletion=completion.images),
    ],
) -> None:
    """Remove images with all their names. What containers use stays until they are gone."""
    here = session(context)
    worst = exits.OK
    for name in names:
        try:
            print(f"removed {_remove(here, name)}")
        except CrispError as error:
            note(str(error))
            worst = worst or exits.status_of(error)
    raise typer.Exit(worst)


def _remove(here: Session, name: str) -> str:
    from api.proto import cri_pb2

    service = here.any_realm.image
    spec = cri_pb2.ImageSpec(image=name)
    found = service.ImageStatus(cri_pb2.ImageStatusRequest(image=spec), timeout=READ_TIMEOUT)
    if not found.HasField("image"):
        raise Absent(f"image {name!r} is not in the store; `crisp images` lists what is")
    service.RemoveImage(cri_pb2.RemoveImageRequest(image=spec))
    return ", ".join(found.image.repo_tags) or found.image.id
