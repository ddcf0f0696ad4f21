"""One client's connection: bytes in, bytes out, and every way in which a client can be gone.

Knows nothing of what is spoken. A client that is idle for too long is cut; one that goes away while nothing
is read from it is noticed by the kernel's word (EPOLLRDHUP), for a paused connection is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Awaitable, Callable
from typing import Final

READ: Final = 256 * 1024
"""Bytes taken at a time."""
HIGH_WATER: Final = 512 * 1024
"""Bytes that may wait to be sent before who sends has to wait."""
LINGER: Final = 5.0
"""Seconds that a client has to take what was sent last."""
FAREWELL: Final = 1.0
"""Seconds in which input of a client that is gone may still be delivered."""


class ClientGone(Exception):
    """The connection is over, or the client is not there to be written to."""


class Wire:
    """`idle` is in seconds. Made on the event loop; `close` is owed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, idle: float) -> None:
        self._reader = reader
        self._writer = writer
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(idle, self._check_idle)
        self._hung_up = asyncio.Event()
        self._watch: select.epoll | None = None
        writer.transport.set_write_buffer_limits(high=HIGH_WATER)
        self._prepare(writer.get_extra_info("socket"))

    def _prepare(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        self._watch = select.epoll(1)
        self._watch.register(connection.fileno(), select.EPOLLRDHUP | select.EPOLLONESHOT)
        self._loop.add_reader(self._watch.fileno(), self._on_hangup)

    def _on_hangup(self) -> None:
        self._unwatch()
        self._hung_up.set()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def _check_idle(self) -> None:
        left = self._last + self._idle - self._loop.time()
        if left <= 0:
            self._writer.transport.abort()
        else:
            self._timer = self._loop.call_later(left, self._check_idle)

    async def read(self) -> bytes:
        """What the client sent, b"" when it sends no more. Raises ClientGone."""
        try:
            data = await self._reader.read(READ)
        except OSError as error:
            raise ClientGone(str(error)) from error
        self._last = self._loop.time()
        return data

    def write(self, data: bytes) -> None:
        """Queue bytes; the order of calls is the order on the wire."""
        if data:
            self._writer.write(data)
            self._last = self._loop.time()

    async def send(self, data: bytes) -> None:
        """Queue bytes and wait until not too many wait; others get a turn in any case. Raises ClientGone."""
        self.write(data)
        try:
            await self._writer.drain()
        except OSError as error:
            raise ClientGone(str(error)) from error
        # Where source and client are quick neither reading nor sending ever waits: one piece is one turn.
        await asyncio.sleep(0)

    async def deliver(self, work: Awaitable[None]) -> None:
        """Wait for something that a client's input waits for, but not for a client that is gone.

        Raises ClientGone.
        """
        task = asyncio.ensure_future(work)
        gone: asyncio.Future[None] | None = None
        try:
            await asyncio.sleep(0)  # nearly always it is done at its first step
            if not task.done():
                gone = asyncio.ensure_future(self._gone())
                await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if gone is not None:
                gone.cancel()
            if not task.done():
                task.cancel()
        if not task.done():
            raise ClientGone("the client went away while its input waited")
        task.result()

    async def _gone(self) -> None:
        await self._hung_up.wait()
        await asyncio.sleep(FAREWELL)

    async def finish(self, over: Callable[[bytes], bool] = lambda _: False) -> None:
        """Let the client take what was sent, then end the connection; `over` hears what it says meanwhile.

        Closing with unread input would make the kernel throw away what the client has not taken yet.
        """
        with contextlib.suppress(TimeoutError, OSError, ClientGone):
            async with asyncio.timeout(LINGER):
                await self._writer.drain()
                if not self._writer.can_write_eof():  # TLS: its goodbye ends both directions
                    self._writer.close()
                    await self._writer.wait_closed()
                    return
                self._writer.write_eof()
                while (data := await self.read()) and not over(data):
                    pass

    def abort(self) -> None:
        """End the connection without waiting for anything."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Give everything back."""
        self._timer.cancel()
        self._unwatch()
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
