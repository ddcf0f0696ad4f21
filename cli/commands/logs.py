"""`crisp logs`: what a container wrote, whether or not the daemon runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from cli import logfiles, names
from cli.arguments import ContainerName, session
from cli.inventory import KUBELET, RUN
from cli.names import Target
from cli.places import POD_LOGS
from cli.session import Session
from oci import logline
from oci.errors import Absent, BadInput, Busy, Deadline, Internal
from oci.logline import Output

POLL = 0.1
"""Seconds between two looks at a followed file."""


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    context: typer.Context,
    name: ContainerName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the container ends.")] = False,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the attempt before.")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help="A duration back (10m), or an RFC 3339 time.")
    ] = "",
    tail: Annotated[
        int | None, typer.Option("--tail", min=0, metavar="LINES", help="Only so many from the end.")
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="When each line was written.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Where kubelet keeps logs, for when the daemon is down."),
    ] = None,
) -> None:
    """Show what a container wrote: its output on standard output, its errors on standard error.

    Finds the log by name in /var/log/pods when the daemon does not run.
    """
    here = session(context)
    start = _moment(since, here.now()) if since else 0
    target, live = _find(here, name, directory or POD_LOGS)
    assert target.container is not None
    if not target.container.log_path:
        raise Absent(f"{target.name} keeps no log: its request named no log path")
    path = Path(target.container.log_path)
    if previous:
        path = logfiles.previous(path)
    keep_on = None
    if follow and not previous:
        keep_on = _until_it_ends(here, target) if live else _for_ever
    write(logfiles.read(path, tail=tail, since=start, keep_on=keep_on), timestamps=timestamps)


def write(outputs: Iterable[Output], *, timestamps: bool = False) -> None:
    """To the standard stream that each output was written to."""
    for output in outputs:
        stream = sys.stdout if output.stream == "stdout" else sys.stderr
        prefix = output.time + b" " if timestamps and output.time else b""
        stream.buffer.write(prefix + output.content)
        stream.buffer.flush()


def _find(here: Session, name: str, pod_logs: Path) -> tuple[Target, bool]:
    """The container, and whether the daemon knows it."""
    unanswered: Busy | Internal | Absent | Deadline
    try:
        return names.find_container(name, here.inventory()), True
    except (Busy, Internal, Absent, Deadline) as error:
        unanswered = error
    kept = logfiles.offline({KUBELET: pod_logs, RUN: here.places.run_logs})
    try:
        return names.find_container(name, kept), False
    except Absent:
        if isinstance(unanswered, Absent):
            raise unanswered from None
        said = str(unanswered).splitlines()[0]
        raise Absent(
            f"{said}; and no log of {name!r} is below {pod_logs} or {here.places.run_logs}"
        ) from None


def _moment(text: str, now: int) -> int:
    from config.units import parse_duration

    try:
        return now - int(parse_duration(text) * 1e9)
    except ValueError:
        pass
    try:
        return logline.nanoseconds(text.encode())
    except BadInput:
        raise BadInput(
            f"--since: {text[:40]!r} is neither a duration (10m, 1h30m) nor a time (2026-01-31T12:00:00Z)"
        ) from None


def _for_ever() -> bool:
    time.sleep(POLL)
    return True


def _until_it_ends(here: Session, target: Target) -> logfiles.KeepOn:
    from cli.watching import ExitWatch

    watch = ExitWatch(here.another(), target.realm, target.id)
    return lambda: not watch.wait(POLL)
