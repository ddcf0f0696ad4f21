"""flock(2): one holder of a file, and who it is."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from oci.errors import Busy


class Lock:
    """An exclusive lock on a file that holds the pid of its holder; the kernel drops it with the process."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._also: Lock | None = None
        self.path = path

    def hold_also(self, other: Lock) -> None:
        """Have `other` released with this one."""
        self._also = other

    def release(self) -> None:
        """Give the lock up; the file stays (removing it would race with the next holder). Repeatable."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._also is not None:
            self._also.release()


def acquire(path: str | Path, *, what: str) -> Lock:
    """Take the lock at once, or raise Busy with the holder's pid; `what` names the locked thing in it."""
    file = Path(path)
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        writable = True
    except OSError as error:
        if error.errno != errno.EROFS or not file.exists():
            raise
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        writable = False  # whoever comes second is told of an earlier holder
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if writable:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise Busy(f"{what} is in use by process {holder} (lock {file})") from error
    except BaseException:
        os.close(descriptor)
        raise
    return Lock(descriptor, file)
