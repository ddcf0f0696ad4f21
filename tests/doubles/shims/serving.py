"""The serving end of ttrpc, for tests: each call a task of its own, and all ways of breaking the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError, Message

from shim.runtimes.shimv2.proto import ttrpc_pb2
from shim.runtimes.shimv2.ttrpc import frames
from shim.runtimes.shimv2.ttrpc.frames import BadFrame, Decoder, Frame
from tests.doubles.shims.install import Plan

OK, UNKNOWN, INVALID, NOT_FOUND, EXISTS, PRECONDITION, UNIMPLEMENTED = 0, 2, 3, 5, 6, 9, 12

Method = Callable[[bytes], Awaitable[Message]]
"""Gets an encoded request; raises Refused for a status."""

_CHUNK = 1 << 16
_WORKS = frozenset({"late", "stray", "swap"})  # the call is served all the same


class Refused(Exception):
    """A call that ends with a status other than OK."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


class Server:
    """`methods` are by (service, method), `plans` by method. `calls` takes their names, a line each.

    `serve` is for `asyncio.start_unix_server`.
    """

    def __init__(
        self,
        methods: Mapping[tuple[str, str], Method],
        plans: Mapping[str, Plan] | None = None,
        *,
        calls: Path | None = None,
    ) -> None:
        self._methods = methods
        self._calls = calls
        self._plans = dict(plans or {})
        self._used: dict[str, int] = {}
        self._next: asyncio.Event = asyncio.Event()

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
        except (BadFrame, OSError):
            pass
        finally:
            for task in list(calls):
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, frame: Frame, writer: asyncio.StreamWriter) -> None:
        try:
            request = ttrpc_pb2.Request.FromString(frame.payload)
        except DecodeError as error:
            response = _failed(INVALID, f"the request cannot be read: {error}")
            writer.write(_encoded(frame, response.SerializeToString()))
            return
        if self._calls is not None:
            with self._calls.open("a") as calls:
                calls.write(f"{request.method}\n")
        plan = self._plan(request.method)
        last, self._next = self._next, asyncio.Event()
        if plan is None or plan.after or plan.act in _WORKS:
            response = await self._respond(frame, request)
        else:
            response = ttrpc_pb2.Response()
        payload = response.SerializeToString()
        if plan is not None:
            payload = await self._spoil(plan, frame, payload, writer)
        if not writer.is_closing():
            writer.write(_encoded(frame, payload))
        last.set()

    def _plan(self, method: str) -> Plan | None:
        plan = self._plans.get(method)
        if plan is None:
            return None
        used = self._used[method] = self._used.get(method, 0) + 1
        return plan if not plan.times or used <= plan.times else None

    async def _spoil(self, plan: Plan, frame: Frame, payload: bytes, writer: asyncio.StreamWriter) -> bytes:
        match plan.act:
            case "fail":
                return _failed(plan.code, plan.words).SerializeToString()
            case "hang":
                await asyncio.Event().wait()
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "garbage":
                return bytes(range(255, 0, -1))
            case "late":
                await asyncio.sleep(plan.seconds)
            case "drop":
                writer.close()
            case "torn":
                writer.write(_encoded(frame, payload + bytes(20))[:15])
                writer.close()
            case "long":
                over = frames.LONGEST + 1
                writer.write(struct.pack(">IIBB", over, frame.stream, frames.RESPONSE, 0) + bytes(over))
                await writer.drain()
            case "alien":
                writer.write(struct.pack(">IIBB", 3, frame.stream, 9, 0) + b"abc")
            case "stray":
                for stream in (frame.stream + 1, frame.stream + 1000, 0):
                    writer.write(frames.encode(Frame(stream=stream, type=frames.RESPONSE, payload=payload)))
            case "swap":
                await self._next.wait()
        return payload

    async def _respond(self, frame: Frame, request: ttrpc_pb2.Request) -> ttrpc_pb2.Response:
        if frame.overlong:
            return _failed(8, f"message of {frame.overlong} bytes is over {frames.LONGEST}")
        if frame.type != frames.REQUEST or not frame.stream % 2:
            return _failed(INVALID, f"type {frame.type} on stream {frame.stream} is no request")
        method = self._methods.get((request.service, request.method))
        if method is None:
            return _failed(UNIMPLEMENTED, f"service {request.service}")
        limit = request.timeout_nano / 1e9 if request.timeout_nano > 0 else None
        try:
            async with asyncio.timeout(limit):
                answer = await method(request.payload)
        except TimeoutError:
            return _failed(4, "context deadline exceeded")
        except DecodeError as error:
            return _failed(INVALID, f"the request cannot be read: {error}")
        except Refused as error:
            return _failed(error.code, str(error))
        return ttrpc_pb2.Response(payload=answer.SerializeToString())


def _encoded(frame: Frame, payload: bytes) -> bytes:
    return frames.encode(Frame(stream=frame.stream, type=frames.RESPONSE, payload=payload))


def _failed(code: int, message: str) -> ttrpc_pb2.Response:
    return ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=code, message=message))
