"""A pull as it goes: on a terminal a moving picture, elsewhere a line for each thing worth one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from cli.form import note, short, size
from oci.errors import Busy

if TYPE_CHECKING:
    from rich.progress import Progress

    from api.proto import admin_pb2
    from cli.session import Session


class Shown(Protocol):
    """What a pull tells about itself."""

    def show(self, progress: admin_pb2.PullProgress) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def pull(
    session: Session,
    reference: str,
    *,
    username: str = "",
    password: str = "",
    namespace: str = "",
    quiet: bool = False,
) -> admin_pb2.PullProgress:
    """Pull, tell on standard error how it goes; returns the last picture of it, which has the image's id."""
    from api.proto import admin_pb2

    request = admin_pb2.PullRequest(
        reference=reference, username=username, password=password, namespace=namespace
    )
    return follow(session.admin.Pull(request), reference, quiet=quiet)


def follow(
    stream: Iterable[admin_pb2.PullProgress], reference: str, *, quiet: bool
) -> admin_pb2.PullProgress:
    """Show each picture. Raises Busy when the stream ends before the pull does."""
    shown: Shown = Nothing() if quiet else Moving(reference) if sys.stderr.isatty() else Lines(reference)
    started = time.monotonic()
    with shown:
        for progress in stream:
            shown.show(progress)
            if progress.image_id:
                break
        else:
            raise Busy(f"pull {reference}: the daemon ended before the pull did, pull again")
    if not quiet:
        seconds = time.monotonic() - started
        amount = f"{size(progress.received)} in {seconds:.1f} s" if progress.received else "nothing new"
        note(f"{reference}: {short(progress.image_id)}, {amount}")
    return progress


def source(progress: admin_pb2.PullProgress) -> str:
    """Who answers, why him, and who we are to him."""
    parts = [progress.endpoint]
    if progress.origin:
        parts.append(f"(named in {progress.origin})")
    if progress.credentials:
        parts.append(f"credentials: {progress.credentials}")
    return " ".join(parts)


class Nothing:
    """For `--quiet`."""

    def show(self, progress: admin_pb2.PullProgress) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Lines:
    """For logs and pipes: the source when it is known or changes, and each layer that is done."""

    def __init__(self, reference: str, write: Callable[[str], None] = note) -> None:
        self._reference = reference
        self._write = write
        self._source = ""
        self._done: set[str] = set()

    def show(self, progress: admin_pb2.PullProgress) -> None:
        if progress.endpoint and source(progress) != self._source:
            self._source = source(progress)
            self._write(f"{self._reference}: from {self._source}")
        for layer in progress.layers:
            if layer.phase in ("done", "shared") and layer.digest not in self._done:
                self._done.add(layer.digest)
                what = "already here" if layer.phase == "shared" else size(layer.total)
                self._write(f"{self._reference}: layer {short(layer.digest)} {what}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Moving:
    """For a terminal: one bar a layer, one for all, with the rate; it is gone when the pull has ended."""

    def __init__(self, reference: str) -> None:
        self._lines = Lines(reference)
        self._bars: dict[str, int] = {}
        self._progress = _bars()

    def show(self, progress: admin_pb2.PullProgress) -> None:
        self._lines.show(_without_layers(progress))
        self._bar("", f"{progress.stage}", progress.received, progress.total)
        for layer in progress.layers:
            whole = layer.phase in ("done", "shared", "unpacking")
            self._bar(
                layer.digest,
                f"{short(layer.digest)} {layer.phase}",
                layer.total if whole else layer.received,
                layer.total,
            )

    def _bar(self, key: str, text: str, received: int, total: int) -> None:
        from rich.progress import TaskID

        if key not in self._bars:
            self._bars[key] = self._progress.add_task(text, total=None)
        self._progress.update(
            TaskID(self._bars[key]), description=text, completed=received, total=total or None
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _without_layers(progress: admin_pb2.PullProgress) -> admin_pb2.PullProgress:
    copy = type(progress)()
    copy.CopyFrom(progress)
    copy.ClearField("layers")
    return copy
