"""The serving end of ttrpc: unary methods, each call a task of its own, over any number of connections.

For the events that shims publish, and for doubles of shims in tests. Knows no service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from google.protobuf.message import DecodeError, Message

from oci.errors import Absent, BadInput, Busy, CrispError, Deadline, Duplicate, Full, Unsupported, WrongState
from shim.runtimes.shimv2.proto import ttrpc_pb2
from shim.runtimes.shimv2.ttrpc import frames
from shim.runtimes.shimv2.ttrpc.frames import BadFrame, Decoder, Frame

log = logging.getLogger(__name__)

Handler = Callable[[bytes], Awaitable[Message]]
"""Gets an encoded request; raises a CrispError for a status."""

_CODES: Mapping[type[CrispError], int] = {
    BadInput: 3,
    Deadline: 4,
    Absent: 5,
    Duplicate: 6,
    Full: 8,
    WrongState: 9,
    Unsupported: 12,
    Busy: 14,
}
_UNKNOWN = 2
_CHUNK = 1 << 16


class Server:
    """`methods` are by (service, method). `serve` is a callback of `asyncio.start_unix_server`."""

    def __init__(self, methods: Mapping[tuple[str, str], Handler]) -> None:
        self._methods = methods

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end; calls that are still at work are cancelled with it."""
        decoder = Decoder()
        calls: set[asyncio.Task[None]] = set()
        try:
            while data := await reader.read(_CHUNK):
                for frame in decoder.receive(data):
                    task = asyncio.get_running_loop().create_task(self._answer(frame, writer))
                    calls.add(task)
                    task.add_done_callback(calls.discard)
        except (BadFrame, OSError) as error:
            log.warning("a ttrpc client is cut off", extra={"reason": str(error)})
        finally:
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            writer.close()

    async def _answer(self, frame: Frame, writer: asyncio.StreamWriter) -> None:
        response = await self._respond(frame)
        data = frames.encode(
            Frame(stream=frame.stream, type=frames.RESPONSE, payload=response.SerializeToString())
        )
        writer.write(data)

    async def _respond(self, frame: Frame) -> ttrpc_pb2.Response:
        if frame.overlong:
            return _failed(_CODES[Full], f"message of {frame.overlong} bytes is over {frames.LONGEST}")
        if frame.type != frames.REQUEST or not frame.stream % 2:
            return _failed(_CODES[BadInput], f"type {frame.type} on stream {frame.stream} is no request")
        try:
            request = ttrpc_pb2.Request.FromString(frame.payload)
            handler = self._methods.get((request.service, request.method))
            if handler is None:
                return _failed(_CODES[Unsupported], f"{request.service}/{request.method} is not served")
            limit = request.timeout_nano / 1e9 if request.timeout_nano > 0 else None
            async with asyncio.timeout(limit):
                answer = await handler(request.payload)
        except TimeoutError:
            return _failed(_CODES[Deadline], "the caller's time is over")
        except DecodeError as error:
            return _failed(_CODES[BadInput], f"the request cannot be read: {error}")
        except CrispError as error:
            return _failed(_CODES.get(type(error), _UNKNOWN), error.message)
        return ttrpc_pb2.Response(payload=answer.SerializeToString())


def _failed(code: int, message: str) -> ttrpc_pb2.Response:
    return ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=code, message=message))
