"""Bytes through descriptors on the event loop: pipes, terminals. Nothing is read before somebody wants it.

Not reading is how a slow client holds back the process that writes: nothing is kept here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import time
from typing import Final

CHUNK: Final = 256 * 1024
"""Bytes read at a time, and asked of the kernel as a pipe's capacity."""

_OVER: Final = frozenset({errno.EIO, errno.EBADF})
"""What a terminal says when its last user has closed it, and a descriptor that was closed meanwhile."""


def make_pipe() -> tuple[int, int]:
    """A pipe (reading end, writing end) as large as is allowed; both close on exec."""
    ends = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # the user's pages for pipes are used up: a smaller one does
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, CHUNK)
    return ends


class Source:
    """Reads a descriptor that it owns. `closed` is done at the end; `since` is when the last wait began."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.since = 0.0
        os.set_blocking(descriptor, False)

    @property
    def starving(self) -> bool:
        """Whether somebody waits for bytes that do not come."""
        return self._waiting is not None

    def inode(self) -> int:
        """What identifies a pipe in /proc/PID/fd; 0 once it is closed."""
        return os.fstat(self._descriptor).st_ino if self._descriptor >= 0 else 0

    async def read(self) -> bytes:
        """The next bytes, b"" at the end."""
        while self._descriptor >= 0:
            try:
                data = os.read(self._descriptor, CHUNK)
            except BlockingIOError:
                await self._readable()
                continue
            except OSError as error:
                if error.errno not in _OVER:
                    raise
                data = b""
            if data:
                return data
            self.close()
        return b""

    async def _readable(self) -> None:
        self._waiting = self._loop.create_future()
        self.since = time.monotonic()
        self._loop.add_reader(self._descriptor, _wake, self._waiting)
        try:
            await self._waiting
        finally:
            if self._descriptor >= 0:
                self._loop.remove_reader(self._descriptor)
            self._waiting = None

    def close(self) -> None:
        """Repeatable. Who reads is told the end."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if self._waiting is not None:
            _wake(self._waiting)
        _wake(self.closed)


class Sink:
    """Writes to a descriptor that it owns."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        os.set_blocking(descriptor, False)

    async def write(self, data: bytes) -> None:
        """All of `data`; dropped when nobody can read it any more. One writer."""
        view = memoryview(data)
        while view and self._descriptor >= 0:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                if error.errno not in _OVER and not isinstance(error, BrokenPipeError):
                    raise
                self.close()

    async def _writable(self) -> None:
        self._waiting = self._loop.create_future()
        self._loop.add_writer(self._descriptor, _wake, self._waiting)
        try:
            await self._waiting
        finally:
            if self._descriptor >= 0:
                self._loop.remove_writer(self._descriptor)
            self._waiting = None

    def close(self) -> None:
        """Repeatable; the reader sees the end."""
        if self._descriptor >= 0:
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if self._waiting is not None:
            _wake(self._waiting)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
