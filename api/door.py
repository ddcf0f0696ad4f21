"""Every call enters here: readiness, the call's identity, its log records, its latency, its error code.

Owns what all methods share, so that a service method is only translation and one verb. Mutations are
shielded from their caller further down, where the work is (`shim/lifecycle/`); what is awaited here really
ends with the caller.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import grpc

from api import codes
from api.changes import Watch
from oci.errors import Absent, BadInput, Busy, CrispError, Duplicate, Internal, Unsupported, WrongState
from shim import logcontext

log = logging.getLogger("crisp.rpc")

Unary = Callable[[Any], Awaitable[Any]]


class Messages(Protocol):
    """What a streamed call answers with: an asynchronous iterator that can be closed at any time."""

    def __aiter__(self) -> AsyncIterator[Any]: ...
    async def aclose(self) -> None: ...


Stream = Callable[[Any], Messages]

# kubelet polls these every second or so: worth a record only when somebody debugs.
_POLLED = (
    "List",
    "Stream",
    "Version",
    "Status",
    "PodSandboxStatus",
    "ContainerStatus",
    "ContainerStats",
    "Image",
)

# The caller's doing; an operator need not be woken.
_EXPECTED = {kind.kind for kind in (Absent, BadInput, Duplicate, Unsupported, WrongState)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One finished call, for whoever counts them. `code` is gRPC's name of it, "OK" for success."""

    service: str
    method: str
    code: str
    seconds: float


Observer = Callable[[Call], None]


class Door:
    """`not_ready` says why no call can be served yet, "" once they can; `observer` sees each call end."""

    def __init__(self, *, not_ready: Callable[[], str], observer: Observer | None = None) -> None:
        self._not_ready = not_ready
        self._observer = observer
        self._watches: set[Watch[Any, Any]] = set()
        self._closed = False

    def close(self) -> None:
        """End the streams that would never end by themselves: the server waits for all calls."""
        self._closed = True
        for watch in self._watches:
            watch.end()

    @contextmanager
    def _watching(self, messages: Messages) -> Iterator[None]:
        if not isinstance(messages, Watch):
            yield
            return
        self._watches.add(messages)
        if self._closed:
            messages.end()
        try:
            yield
        finally:
            self._watches.discard(messages)

    def unary(self, service: str, method: str, verb: Unary) -> Callable[[Any, Any], Awaitable[Any]]:
        """A grpc.aio handler that answers with what `verb` returns for the request."""

        async def handle(request: Any, context: Any) -> Any:
            with _identity(method, request):
                started = time.perf_counter()
                try:
                    self._enter(method)
                    response = await verb(request)
                except asyncio.CancelledError:
                    self._left(service, method, grpc.StatusCode.CANCELLED, started)
                    raise
                except Exception as error:  # noqa: BLE001 - the last stop of every error, nothing is swallowed
                    await self._refuse(service, method, context, error, started)
                self._left(service, method, grpc.StatusCode.OK, started)
                return response

        return handle

    def stream(self, service: str, method: str, verb: Stream) -> Callable[[Any, Any], Awaitable[None]]:
        """A grpc.aio handler that sends what `verb` yields, and closes it when the caller leaves."""

        async def handle(request: Any, context: Any) -> None:
            with _identity(method, request):
                started = time.perf_counter()
                try:
                    self._enter(method)
                    async with aclosing(verb(request)) as messages:
                        with self._watching(messages):
                            # Tells the client that its stream stands, before there is anything to say.
                            await context.send_initial_metadata(())
                            async for message in messages:
                                await context.write(message)
                except asyncio.CancelledError:
                    self._left(service, method, grpc.StatusCode.CANCELLED, started)
                    raise
                except Exception as error:  # noqa: BLE001 - the last stop of every error, nothing is swallowed
                    await self._refuse(service, method, context, error, started)
                self._left(service, method, grpc.StatusCode.OK, started)

        return handle

    def _enter(self, method: str) -> None:
        log.debug("rpc begins", extra={"method": method})
        if reason := self._not_ready():
            raise Busy(f"recovering: {reason}")

    def _left(self, service: str, method: str, code: grpc.StatusCode, started: float) -> None:
        seconds = time.perf_counter() - started
        polled = code is grpc.StatusCode.OK and method.startswith(_POLLED)
        log.log(
            logging.DEBUG if polled else logging.INFO,
            "rpc ends",
            extra={"method": method, "code": code.name, "ms": round(seconds * 1000, 2)},
        )
        self._observe(service, method, code, seconds)

    async def _refuse(
        self, service: str, method: str, context: Any, error: Exception, started: float
    ) -> NoReturn:
        outcome = codes.outcome(error)
        seconds = time.perf_counter() - started
        fields = {
            "method": method,
            "code": outcome.code.name,
            "ms": round(seconds * 1000, 2),
            "error": str(error),
        }
        if outcome.kind == Internal.kind:
            # A typed failure says all there is in its message; only a surprise needs its traceback.
            surprise = None if isinstance(error, CrispError) else error
            log.error("rpc fails", extra={**fields, "reference": outcome.reference}, exc_info=surprise)
        else:
            log.log(logging.INFO if outcome.kind in _EXPECTED else logging.WARNING, "rpc fails", extra=fields)
        self._observe(service, method, outcome.code, seconds)
        await context.abort(outcome.code, outcome.message)
        raise AssertionError("context.abort returned")

    def _observe(self, service: str, method: str, code: grpc.StatusCode, seconds: float) -> None:
        if self._observer is not None:
            self._observer(Call(service=service, method=method, code=code.name, seconds=seconds))


@contextmanager
def _identity(method: str, request: Any) -> Iterator[None]:
    """Names the call, and the objects that the request names, for all log records of its work."""
    token = logcontext.rpc.set(f"{method}/{secrets.token_hex(4)}")
    try:
        with logcontext.about(
            pod_id=getattr(request, "pod_sandbox_id", ""), container_id=getattr(request, "container_id", "")
        ):
            yield
    finally:
        logcontext.rpc.reset(token)
