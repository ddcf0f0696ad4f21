"""Where a piece of output is between the fifo and the log file, so that killing the process loses no byte.

The kernel moves bytes from the fifo into this file (splice), the file says beforehand which log they belong
to and how long that was, and is emptied when they are in it. What a killed process leaves is therefore either
in the fifo, here, or in the log: `replay` cuts a torn write off and makes it again.
"""

from __future__ import annotations

import os
import time

from shim.logger.lines import lines, stamp

CHUNK = 1 << 16
"""Bytes moved at a time; what a pipe holds."""
_START = 4096  # where the bytes begin; before them is the heading
_END = b"\0\n"


class Spool:
    """One file, made if absent, which holds at most one piece. Raises OSError."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, fifo: int, container: bytes, stream: bytes, log: int) -> bytes | None:
        """Move the next bytes out of the fifo; b"" at its end, None when there are none now."""
        status = os.fstat(log)
        size = os.lseek(log, 0, os.SEEK_END)
        heading = b"%s %s %d %d %d" % (container, stream, status.st_dev, status.st_ino, size)
        os.pwrite(self._file, heading + _END, 0)
        try:
            moved = os.splice(fifo, self._file, CHUNK, offset_dst=_START)
        except BlockingIOError:
            return None
        return os.pread(self._file, moved, _START) if moved else b""

    def done(self) -> None:
        """The piece is in the log."""
        os.ftruncate(self._file, _START)

    def read(self) -> tuple[bytes, bytes, int, int, int, bytes] | None:
        """Container, stream, the log's device, inode and length before the piece, and the piece."""
        heading = os.pread(self._file, _START, 0).partition(_END)
        data = os.pread(self._file, CHUNK, _START)
        words = heading[0].split(b" ")
        if not data or not heading[1] or len(words) != 5:
            return None
        return words[0], words[1], int(words[2]), int(words[3]), int(words[4]), data

    def replay(self, log: int) -> None:
        """Bring the piece into the log, whatever of it is there already."""
        found = self.read()
        if found is not None:
            _, stream, device, inode, size, data = found
            status = os.fstat(log)
            if (status.st_dev, status.st_ino) == (device, inode) and status.st_size > size:
                os.ftruncate(log, size)
            append(log, lines(data, stream, stamp(time.time_ns())))
        self.done()

    def renew(self) -> None:
        """Begin with a new file, after the old one was renamed."""
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        os.close(self._file)


def append(log: int, data: bytes) -> None:
    """All of it, or nothing. Raises OSError."""
    size = os.lseek(log, 0, os.SEEK_END)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(log, view) :]
    except OSError:
        os.ftruncate(log, size)
        raise
