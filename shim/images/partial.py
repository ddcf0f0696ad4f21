"""A layer's compressed bytes as they come, kept in a file: a cut, a kill or a restart costs none of them.

Nothing in such a file is trusted or flushed to disk: the next try reads it through the same hashes as what
comes from the network, and begins anew where they do not fit. Blocking; who fetches the blob holds its file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from oci.manifest import Descriptor
from shim.images.layout import Layout
from shim.images.progress import LayerMeter

LEAST: Final = 1 << 20
"""Bytes of a blob that is worth it."""

LASTING: Final = 86_400.0
"""Seconds after its last byte until what nobody came back for goes."""

_BLOCK: Final = 256 << 10
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Partial:
    """The file of one blob. Without a descriptor nothing is kept, and all else is the same."""

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = size
        self.kept = 0
        if descriptor >= 0:
            self.kept = os.fstat(descriptor).st_size
            if self.kept > size:
                self.forget()

    @property
    def whole(self) -> bool:
        """Whether every byte of the blob has come, right or wrong."""
        return self.kept == self._size

    def through(self, fetch: Callable[[int], Iterator[bytes]], meter: LayerMeter) -> Iterator[bytes]:
        """The blob: what is kept of it, then what `fetch` brings from that byte on, which is kept too."""
        meter.kept = meter.received = self.kept
        at = 0
        while at < self.kept:
            block = os.pread(self._descriptor, min(_BLOCK, self.kept - at), at)
            if not block:
                break
            at += len(block)
            yield block
        if at and at == self._size:
            return
        for block in fetch(at):
            self._append(block)
            yield block

    def forget(self) -> None:
        """Keep nothing of it, and begin anew with what comes next."""
        self.kept = 0
        if self._descriptor >= 0:
            try:
                os.ftruncate(self._descriptor, 0)
            except OSError:
                self._give_up()

    def done(self) -> None:
        """The layer is there: the file goes."""
        self._give_up()

    def keep(self, path: Path) -> Path | None:
        """Bring the whole blob to disk as `path`, where nobody takes it for left behind. Raises OSError.

        None where it is not kept.
        """
        if self._descriptor < 0 or not self.whole:
            return None
        os.fdatasync(self._descriptor)
        self._path.rename(path)  # before the lock goes
        self.close()
        return path

    def _append(self, block: bytes) -> None:
        if self._descriptor < 0:
            return
        view = memoryview(block)
        try:
            while view:
                written = os.pwrite(self._descriptor, view, self.kept)
                self.kept += written
                view = view[written:]
        except OSError:  # a full disk: the layer itself may still fit
            self._give_up()

    def _give_up(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            self.close()
        self.kept = 0

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def keeping(layout: Layout, blob: Descriptor, *, small: bool = False) -> Iterator[Partial]:
    """The file of a blob that is about to be fetched; a small blob has one only with `small`.

    One that another thread or process is at, or that cannot be made, is none.
    """
    path, descriptor = layout.partial(blob.digest), -1
    if small or blob.size >= LEAST:
        with contextlib.suppress(OSError):
            descriptor = _held(path)
    partial = Partial(path, descriptor, blob.size)
    try:
        yield partial
    finally:
        if not partial.kept:
            partial.done()
        partial.close()


def _held(path: Path) -> int:
    """The opened file, locked. Raises OSError."""
    descriptor = os.open(path, _FLAGS, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def sizes(layout: Layout) -> dict[str, int]:
    """Bytes on disk of each file, by name. One listing."""
    found = {}
    with os.scandir(layout.partials) as listing:
        for entry in listing:
            with contextlib.suppress(FileNotFoundError):
                found[entry.name] = entry.stat(follow_symlinks=False).st_blocks * 512
    return found


def remove_idle(layout: Layout, *, older: float = LASTING, dry: bool = False) -> dict[str, int]:
    """Remove what nobody is at and has got no byte for `older` seconds; the bytes of what goes, or would.

    A file of the future is not old: clocks go wrong, and one too many is no harm.
    """
    gone = {}
    for name, size in sizes(layout).items():
        path = layout.partials / name
        with contextlib.suppress(OSError):
            descriptor = _held(path)
            try:
                if time.time() - os.fstat(descriptor).st_mtime >= older:
                    if not dry:
                        path.unlink()
                    gone[name] = size
            finally:
                os.close(descriptor)
    return gone
