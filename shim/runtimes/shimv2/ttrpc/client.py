"""The calling end of a ttrpc connection on the event loop: calls side by side, answered in any order.

Only unary calls: no shim service needs another kind. Errors become the kinds of `oci.errors`; the loss of the
connection fails every call that waits and is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from oci.errors import (
    Absent,
    BadInput,
    Busy,
    CrispError,
    Deadline,
    Duplicate,
    Full,
    Internal,
    Unsupported,
    WrongState,
)
from shim.runtimes.shimv2.proto import ttrpc_pb2
from shim.runtimes.shimv2.ttrpc import frames
from shim.runtimes.shimv2.ttrpc.frames import BadFrame, Decoder, Frame

M = TypeVar("M", bound=Message)

_CHUNK: Final = 1 << 16
_LAST_STREAM: Final = 0x7FFFFFFF

_KINDS: Final[Mapping[int, type[CrispError]]] = {
    3: BadInput,
    4: Deadline,
    5: Absent,
    6: Duplicate,
    8: Full,
    9: WrongState,
    12: Unsupported,
    14: Busy,
}
"""Codes of gRPC as ttrpc's Status carries them; others are Internal."""


class ConnectionLost(Internal):
    """The connection ended before the answer came."""


class Client:
    """One connection, which it owns. `lost` is called once, on the loop, when the other side is gone.

    `name` says in messages whom it speaks to; `metadata` goes with every call.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        name: str,
        metadata: Mapping[str, str] | None = None,
        lost: Callable[[], None] | None = None,
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._name = name
        self._metadata = dict(metadata or {})
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder()
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._next = 1
        self._unsent = bytearray()
        self._why = ""
        self._loop.add_reader(connection, self._readable)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return bool(self._why)

    async def call(
        self,
        service: str,
        method: str,
        request: Message,
        answer: type[M],
        *,
        timeout: float | None,  # noqa: ASYNC109 - sent to the server as well
    ) -> M:
        """Call and wait for the answer. `timeout` is seconds, None waits for ever.

        A cancelled call is forgotten here; ttrpc has no way to tell the server. Raises what the server's
        status means, Deadline, ConnectionLost, BadFrame for an answer that cannot be read.
        """
        if self._why:
            raise ConnectionLost(f"{self._name}: {method}: {self._why}")
        message = ttrpc_pb2.Request(
            service=service,
            method=method,
            payload=request.SerializeToString(),
            timeout_nano=0 if timeout is None else int(timeout * 1e9),
        )
        for key, value in self._metadata.items():
            message.metadata.add(key=key, value=value)
        stream = self._take_stream()
        data = frames.encode(Frame(stream=stream, type=frames.REQUEST, payload=message.SerializeToString()))
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._calls[stream] = future
        try:
            self._send(data)
            async with asyncio.timeout(timeout):
                payload = await future
        except TimeoutError:
            raise Deadline(f"{self._name}: {method} was not answered within {timeout:g} s") from None
        finally:
            self._calls.pop(stream, None)
        return self._read(method, payload, answer)

    def close(self) -> None:
        """Let go. Repeatable; `lost` is not called."""
        self._lost = None
        self._end("the connection was closed")

    # ---- the parts

    def _take_stream(self) -> int:
        """Client streams are odd and grow; a connection is not used long enough to run out of them."""
        stream = self._next
        if stream > _LAST_STREAM:
            raise Busy(f"{self._name}: all stream ids of the connection are used up")
        self._next += 2
        return stream

    def _read(self, method: str, payload: bytes, answer: type[M]) -> M:
        try:
            response = ttrpc_pb2.Response.FromString(payload)
            if response.HasField("status") and response.status.code:
                kind = _KINDS.get(response.status.code, Internal)
                raise kind(response.status.message or f"status {response.status.code} without a word")
            return answer.FromString(response.payload)
        except DecodeError as error:
            raise BadFrame(f"{self._name}: the answer to {method} cannot be read: {error}") from error

    def _send(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(f"the connection is gone ({error.strerror})")
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"the connection is gone ({error.strerror})")
            return
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"the connection is gone ({error.strerror})")
            return
        if not data:
            self._end("it closed the connection" + (" within a message" if self._decoder.torn else ""))
            return
        try:
            for frame in self._decoder.receive(data):
                self._take(frame)
        except BadFrame as error:
            self._end(error.message)

    def _take(self, frame: Frame) -> None:
        future = self._calls.get(frame.stream)
        if future is None or future.done():
            return  # nobody waits any more
        if frame.overlong:
            future.set_exception(
                BadFrame(f"{self._name}: the answer has {frame.overlong} bytes, over {frames.LONGEST}")
            )
        elif frame.type != frames.RESPONSE:
            future.set_exception(BadFrame(f"{self._name}: a frame of type {frame.type} is no answer"))
        else:
            future.set_result(frame.payload)

    def _end(self, why: str) -> None:
        if self._why:
            return
        self._why = why
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        with contextlib.suppress(OSError):
            self._socket.close()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(ConnectionLost(f"{self._name}: {why}"))
        if self._lost is not None:
            self._lost()
            self._lost = None
