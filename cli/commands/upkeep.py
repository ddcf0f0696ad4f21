"""`crisp fsck`, `crisp prune`, `crisp export`: the image store as a whole."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from cli import completion, exits
from cli.arguments import Output, session
from cli.form import Form, note, say_json, say_table, short, size
from oci.errors import BadInput, Busy, Internal

if TYPE_CHECKING:
    from api.proto import admin_pb2

_PRUNE_TIMEOUT = 600.0


def register(app: typer.Typer) -> None:
    app.command()(fsck)
    app.command()(prune)
    app.command()(export)


def fsck(
    context: typer.Context,
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair: fetch layers again, remove what no record knows.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only what is wrong.")] = False,
    output: Output = Form.TABLE,
) -> None:
    """Check every stored layer by its digest, and what else is in the image store; pods may run meanwhile.

    Ends with 1 if something is wrong and was not repaired.
    """
    from api.proto import admin_pb2

    found: list[admin_pb2.Finding] = []
    last = admin_pb2.FsckProgress()
    for progress in session(context).admin.Fsck(admin_pb2.FsckRequest(fix=fix)):
        found += progress.findings
        last = progress
        if output is Form.TABLE:
            for finding in progress.findings:
                print("\n".join(_lines(finding)), flush=True)
    if not last.done:
        raise Busy("fsck: the daemon ended before the check did, start it again")
    if output is Form.JSON:
        say_json({"layers": last.layers, "read": last.read, "findings": [_plain(one) for one in found]})
    elif not quiet:
        wrong = f"{len(found)} findings" if found else "nothing wrong"
        note(f"{last.layers} layers, {size(last.read)} read: {wrong}")
    left = [one for one in found if not one.repaired]
    raise typer.Exit(exits.FAILED if left else exits.OK)


def _lines(finding: admin_pb2.Finding) -> list[str]:
    lines = [finding.problem]
    if finding.layer:
        lines.append(f"    layer {finding.layer}")
    if finding.images:
        lines.append(f"    images: {', '.join(finding.images)}")
    if finding.pods:
        lines.append(f"    run on it: {', '.join(finding.pods)}")
    if finding.repaired:
        lines.append(f"    repaired: {finding.repaired}")
    if finding.failure:
        lines.append(f"    not repaired: {finding.failure}")
    return lines


def _plain(finding: admin_pb2.Finding) -> dict[str, Any]:
    return {
        "problem": finding.problem,
        "layer": finding.layer,
        "images": list(finding.images),
        "pods": list(finding.pods),
        "repaired": finding.repaired,
        "failure": finding.failure,
    }


def prune(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Images that have a name too, if no container uses them.")
    ] = False,
    output: Output = Form.TABLE,
) -> None:
    """Remove images that have lost their name and are not used, and beginnings of downloads.

    What is pinned stays, and what containers of any realm use.
    """
    from api.proto import admin_pb2

    request = admin_pb2.PruneRequest(dry_run=dry_run, all=everything)
    gone = session(context).admin.Prune(request, timeout=_PRUNE_TIMEOUT).pruned
    if output is Form.JSON:
        say_json([{"what": one.what, "bytes": one.bytes} for one in gone])
        return
    if gone:
        say_table(("WHAT", "SIZE"), [[one.what, size(one.bytes)] for one in gone])
    total = size(sum(one.bytes for one in gone))
    note(f"{total} would be freed" if dry_run else f"{total} freed")


def export(
    context: typer.Context,
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="A name or id.", autocompletion=completion.images)
    ],
    target: Annotated[
        str, typer.Argument(metavar="FILE", help="The archive to write; - is standard output.")
    ],
) -> None:
    """Write an image as an OCI archive; its id and diff ids are the same wherever it is read.

    A FILE is there when it is whole, or not at all.
    """
    from api.proto import admin_pb2

    if target == "-" and sys.stdout.isatty():
        raise BadInput("export: standard output is a terminal; name a file")
    parts = session(context).admin.Export(admin_pb2.ExportRequest(image=image))
    amount = 0
    try:
        with _writing(target) as file:
            for part in parts:
                file.write(part.content)
                amount += len(part.content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Internal(
            f"export: writing {error.filename or target}: {(error.strerror or '').lower()}"
        ) from error
    if target != "-":
        note(f"{short(image) if image.startswith('sha256:') else image}: {size(amount)} in {target}")


@contextmanager
def _writing(target: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that gets its name when all is in it."""
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    if path.exists() and not path.is_file():
        raise BadInput(f"export: {path} is no regular file; use - and redirect")
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
