"""A typed client for Crisp's sockets, for the command, tests and benchmarks.

`connect` blocks, `connect_async` belongs to an event loop. Errors come back as the kinds of `oci/errors.py`;
nothing of gRPC needs to be known above.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import grpc
import grpc.aio

from api.codes import error_from
from api.proto import admin_pb2_grpc, cri_pb2_grpc

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one message, as kubelet has it."""

TIMEOUT = 120.0
"""Seconds for a call that names no timeout: kubelet's runtimeRequestTimeout."""

_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.default_authority", "localhost"),
    # Two clients of one path must not share a connection: one of them may have met the server before it
    # was restarted.
    ("grpc.use_local_subchannel_pool", 1),
]


class Client:
    """One connection. `runtime` and `image` answer on a CRI socket, `admin` on the admin socket."""

    def __init__(self, path: Path, *, timeout: float = TIMEOUT) -> None:
        self._channel = grpc.insecure_channel(_target(path), options=_OPTIONS)
        self.runtime = cast(
            cri_pb2_grpc.RuntimeServiceStub,
            _Stub(cri_pb2_grpc.RuntimeServiceStub(self._channel), timeout),
        )
        self.image = cast(
            cri_pb2_grpc.ImageServiceStub, _Stub(cri_pb2_grpc.ImageServiceStub(self._channel), timeout)
        )
        self.admin = cast(admin_pb2_grpc.AdminStub, _Stub(admin_pb2_grpc.AdminStub(self._channel), timeout))

    def close(self) -> None:
        """End the connection and every call on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """As `Client`, for an event loop: calls are awaited, streams are iterated with `async for`."""

    def __init__(self, path: Path, *, timeout: float = TIMEOUT) -> None:
        self._channel = grpc.aio.insecure_channel(_target(path), options=_OPTIONS)
        self.runtime = cast(
            "cri_pb2_grpc.RuntimeServiceAsyncStub",
            _AsyncStub(cri_pb2_grpc.RuntimeServiceStub(self._channel), timeout),
        )
        self.image = cast(
            "cri_pb2_grpc.ImageServiceAsyncStub",
            _AsyncStub(cri_pb2_grpc.ImageServiceStub(self._channel), timeout),
        )
        self.admin = cast(
            "admin_pb2_grpc.AdminAsyncStub", _AsyncStub(admin_pb2_grpc.AdminStub(self._channel), timeout)
        )

    async def close(self) -> None:
        """End the connection and every call on it."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def connect(path: Path | str, *, timeout: float = TIMEOUT) -> Client:
    """A client of the socket at `path`; nothing is sent until the first call (Busy if nobody listens)."""
    return Client(Path(path), timeout=timeout)


def connect_async(path: Path | str, *, timeout: float = TIMEOUT) -> AsyncClient:
    """As `connect`, on the running event loop."""
    return AsyncClient(Path(path), timeout=timeout)


def _target(path: Path) -> str:
    return f"unix:{path.absolute()}"


class _Stub:
    """A stub whose calls have a default timeout and raise kinds. Streams have no timeout of their own."""

    def __init__(self, stub: object, timeout: float) -> None:
        self._stub = stub
        self._timeout = timeout

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._stub, name)
        wrapped: Callable[..., Any]
        if isinstance(method, grpc.UnaryStreamMultiCallable):

            def wrapped(request: Any, **options: Any) -> Any:
                # The call begins here, not at the first look: who asks for events and then for the state
                # misses nothing in between.
                return _iterate(name, method(request, **options))
        else:

            def wrapped(request: Any, **options: Any) -> Any:
                try:
                    return method(request, **({"timeout": self._timeout} | options))
                except grpc.RpcError as error:
                    raise _kind(name, error) from None

        setattr(self, name, wrapped)
        return wrapped


def _iterate(name: str, call: Any) -> Iterator[Any]:
    try:
        yield from call
    except grpc.RpcError as error:
        raise _kind(name, error) from None
    finally:
        call.cancel()


class _AsyncStub:
    """As `_Stub`, for an event loop."""

    def __init__(self, stub: object, timeout: float) -> None:
        self._stub = stub
        self._timeout = timeout

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._stub, name)
        wrapped: Callable[..., Any]
        if isinstance(method, grpc.aio.UnaryStreamMultiCallable):

            def wrapped(request: Any, **options: Any) -> Any:
                return _iterate_async(name, method(request, **options))
        else:

            async def wrapped(request: Any, **options: Any) -> Any:
                try:
                    return await method(request, **({"timeout": self._timeout} | options))
                except grpc.RpcError as error:
                    raise _kind(name, error) from None

        setattr(self, name, wrapped)
        return wrapped


async def _iterate_async(name: str, call: Any) -> AsyncIterator[Any]:
    try:
        async for message in call:
            yield message
    except grpc.RpcError as error:
        raise _kind(name, error) from None
    except asyncio.CancelledError:
        raise
    finally:
        call.cancel()


# What gRPC itself says when no answer of the daemon came.
_NO_ANSWER = "Deadline Exceeded"
_BROKEN = re.compile(
    r"failed to connect|Stream removed|Socket closed|recvmsg|sendmsg|Connection reset|GOAWAY"
)


def _kind(name: str, error: grpc.RpcError) -> Exception:
    # Every RpcError that a call raises is a grpc.Call too; the stubs of the types do not say so.
    call = cast(grpc.Call, error)
    code, message = call.code(), call.details() or "no details"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and message == _NO_ANSWER:
        message = f"{name}: no answer in time, the daemon is there but hangs or is overloaded"
    elif code is grpc.StatusCode.UNAVAILABLE and _BROKEN.match(message):
        message = f"{name}: the connection broke, the daemon ended or restarts ({message})"
    return error_from(code, message)
