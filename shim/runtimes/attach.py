"""Taking part in a container's own streams, through conmon's attach socket.

conmon stands still while one of its clients does not read, and the container with it. So everything is read
at once and kept, up to a limit for each client; who lets more wait is cut off. Framing of the socket: conmon
2.1.6, `conn_sock.c`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from oci.errors import Absent, Busy, CrispError, Full, Internal
from shim.runtimes.driver import Output, Size

KEPT: Final = 4 * 1024 * 1024
"""Bytes of output that wait for one client at most."""
_PACKET: Final = 8192 + 1
_SEND: Final = 32768
_ROUNDS: Final = 64
_CONNECT_TIME: Final = 10.0
_STREAMS: Final = {2: Output.STDOUT, 3: Output.STDERR}


def connect(path: Path) -> socket.socket:
    """A connection to a container's attach socket. Blocking. Raises Absent when its conmon is gone."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        made.settimeout(_CONNECT_TIME)
        made.connect(str(path))
        made.setblocking(False)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        made.close()
        raise Absent(f"attach: nobody listens at {path}: the container's conmon is gone") from error
    except TimeoutError as error:
        made.close()
        raise Busy(f"attach: conmon took no connection at {path} within {_CONNECT_TIME:g} s") from error
    except OSError as error:
        made.close()
        raise Internal(f"attach: {path}: {error.strerror}") from error
    return made


class AttachSession:
    """See `shim.runtimes.driver.Session`. `ends_input`: the end of the input is the container's, too."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        outputs: frozenset[Output],
        ends_input: bool,
        resize: Callable[[Size], Awaitable[None]] | None,
        name: str,
    ) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self.outputs = outputs
        self._ends_input = ends_input
        self._resize = resize
        self._name = name
        self._kept: dict[Output, bytearray] = {output: bytearray() for output in outputs}
        self._arrived: dict[Output, asyncio.Event] = {output: asyncio.Event() for output in outputs}
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._failure: CrispError | None = None
        self._writable: asyncio.Future[None] | None = None
        self._open = True
        self._loop.add_reader(connection, self._receive)

    def _receive(self) -> None:
        for _ in range(_ROUNDS):
            try:
                packet = self._socket.recv(_PACKET)
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            if not packet:
                self._end()
                return
            output = _STREAMS.get(packet[0])
            if output in self._kept:
                self._kept[output] += packet[1:]
                self._arrived[output].set()
        if sum(map(len, self._kept.values())) > KEPT:
            self._failure = Full(
                f"{self._name}: the client let more than {KEPT >> 20} MiB of output wait and was cut off"
            )
            self._end()

    def _end(self) -> None:
        """Nothing more comes; what is kept can still be read."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for arrived in self._arrived.values():
            arrived.set()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if not self._ended.done():
            self._ended.set_result(None)

    async def read(self, output: Output) -> bytes:
        kept, arrived = self._kept[output], self._arrived[output]
        await arrived.wait()
        if self._failure is not None:
            raise self._failure
        data = bytes(kept)
        kept.clear()
        if self._open:
            arrived.clear()
        return data

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._open:
            try:
                view = view[self._socket.send(view[:_SEND]) :]
            except BlockingIOError:
                self._writable = self._loop.create_future()
                self._loop.add_writer(self._socket, _wake, self._writable)
                try:
                    await self._writable
                finally:
                    if self._open:
                        self._loop.remove_writer(self._socket)
                    self._writable = None
            except OSError:
                return  # the end is seen by who reads

    def end_input(self) -> None:
        if self._ends_input and self._open:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    async def resize(self, size: Size) -> None:
        if self._resize is not None and self._open:
            with contextlib.suppress(Absent, Busy):
                await self._resize(size)

    async def wait(self) -> None:
        await asyncio.shield(self._ended)
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        self._end()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
