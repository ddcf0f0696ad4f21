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
    from api.proto import admin_pb2, cri_pb2

_ADDITIONAL = "crisp.additional-store"
"""The annotation of an image that is not the node's own (docs/images.md)."""

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
            pinned = "yes" if image.pinned else ""
            rows.append([name, short(image.id), size(image.size), pinned, _store(image)])
    if any(row[-1] for row in rows):
        say_table(("IMAGE", "ID", "SIZE", "PINNED", "ADDITIONAL STORE"), rows)
    else:
        say_table(("IMAGE", "ID", "SIZE", "PINNED"), [row[:-1] for row in rows])


def _store(image: cri_pb2.Image) -> str:
    """The additional store that has the image, "" for one of the node's own."""
    return image.spec.annotations.get(_ADDITIONAL, "")


def _sort_key(image: cri_pb2.Image) -> tuple[list[str], str]:
    return sorted(image.repo_tags) or list(image.repo_digests), image.id


def _plain(image: cri_pb2.Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "tags": list(image.repo_tags),
        "digests": list(image.repo_digests),
        "size": image.size,
        "pinned": image.pinned,
        "additional_store": _store(image),
    }


def import_(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A tar file or a directory.")],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE...", help="Of a store: the images to take; all, if none is named."),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Instead of the names in the archive; may be repeated."),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="docker|containerd", help="PATH is the directory of such a store, read offline."
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Of a store: list what is there, and what cannot be had.")
    ] = False,
    output: Output = Form.TABLE,
) -> None:
    """Put images of the file system into the store: an OCI layout, a docker-archive, another's store."""
    from api.proto import admin_pb2

    if not path.exists():
        raise Absent(f"{path} does not exist on this node")
    request = admin_pb2.ImportRequest(
        path=str(path.resolve()), names=names or [], kind=source, images=images or [], dry_run=dry_run
    )
    done = session(context).admin.Import(request, timeout=IMPORT_TIMEOUT)
    if output is Form.JSON:
        say_json([_imported(image) for image in done.images])
    elif dry_run:
        rows = [
            [", ".join(image.names), short(image.digest), size(image.size), image.problem]
            for image in done.images
        ]
        say_table(("IMAGE", "DIGEST", "SIZE", "PROBLEM"), rows)
    else:
        for image in done.images:
            if image.id:
                print(f"{', '.join(image.names) or '<none>'}  {image.id}")
    failed = [image for image in done.images if image.problem and not dry_run]
    for image in failed:
        note(image.problem)
    raise typer.Exit(exits.FAILED if failed else exits.OK)


def _imported(image: admin_pb2.ImportedImage) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": image.id, "names": list(image.names), "size": image.size}
    if image.digest:
        shown["digest"] = image.digest
    if image.problem:
        shown["problem"] = image.problem
    return shown


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
