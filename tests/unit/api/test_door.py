from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest

from api.door import Call, Door
from api.proto import cri_pb2
from oci.errors import Absent, Internal
from shim import logcontext
from tests.unit.api.grpc_context import Aborted, Context

REQUEST = cri_pb2.StartContainerRequest(container_id="c1")


class Watched:
    """A door with everything that it tells."""

    def __init__(self, caplog: pytest.LogCaptureFixture, not_ready: str = "") -> None:
        caplog.set_level(logging.DEBUG, logger="crisp.rpc")
        self._caplog = caplog
        self.calls: list[Call] = []
        self.door = Door(not_ready=lambda: not_ready, observer=self.calls.append)
        self.context = Context()

    def unary(self, verb: Any, method: str = "StartContainer", request: Any = REQUEST) -> Any:
        handle = self.door.unary("RuntimeService", method, verb)
        return asyncio.run(handle(request, self.context))

    def stream(self, verb: Any) -> None:
        handle = self.door.stream("RuntimeService", "GetContainerEvents", verb)
        asyncio.run(handle(cri_pb2.GetEventsRequest(), self.context))

    @property
    def log(self) -> list[tuple[str, str, str]]:
        """Level, message, code of each record."""
        return [
            (record.levelname, record.message, getattr(record, "code", ""))
            for record in self._caplog.records
            if record.name == "crisp.rpc"
        ]

    @property
    def codes(self) -> list[tuple[str, str]]:
        assert all(call.seconds >= 0 for call in self.calls)
        return [(call.method, call.code) for call in self.calls]


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(caplog)


def test_a_call_is_answered_logged_and_counted(watched: Watched) -> None:
    async def verb(request: Any) -> str:
        return f"started {request.container_id}"

    assert watched.unary(verb) == "started c1"
    assert watched.log == [("DEBUG", "rpc begins", ""), ("INFO", "rpc ends", "OK")]
    assert watched.codes == [("StartContainer", "OK")]


def test_a_call_that_kubelet_repeats_all_day_is_logged_for_debugging_only(watched: Watched) -> None:
    async def verb(_request: Any) -> None: ...

    watched.unary(verb, method="ListContainers", request=cri_pb2.ListContainersRequest())
    assert watched.log == [("DEBUG", "rpc begins", ""), ("DEBUG", "rpc ends", "OK")]


def test_no_call_is_served_before_recovery_is_done(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(caplog, not_ready="3 of 40 containers looked at")

    async def verb(_request: Any) -> None:
        raise AssertionError("must not be called")

    with pytest.raises(Aborted):
        watched.unary(verb, method="Version")
    assert watched.context.aborted == (
        grpc.StatusCode.UNAVAILABLE,
        "recovering: 3 of 40 containers looked at",
    )
    assert watched.codes == [("Version", "UNAVAILABLE")]


def test_an_error_becomes_its_code_and_is_logged_once(watched: Watched) -> None:
    async def verb(_request: Any) -> None:
        raise Absent("container c1 does not exist")

    with pytest.raises(Aborted):
        watched.unary(verb)
    assert watched.context.aborted == (grpc.StatusCode.NOT_FOUND, "container c1 does not exist")
    assert watched.log == [("DEBUG", "rpc begins", ""), ("INFO", "rpc fails", "NOT_FOUND")]
    assert watched.codes == [("StartContainer", "NOT_FOUND")]


SURPRISE, FORESEEN = ValueError("secret"), Internal("runc start: boom")


@pytest.mark.parametrize(("error", "trace"), [(SURPRISE, SURPRISE), (FORESEEN, None)])
def test_an_internal_error_is_logged_and_a_surprise_with_where_it_arose(
    watched: Watched, caplog: pytest.LogCaptureFixture, error: Exception, trace: Exception | None
) -> None:
    async def verb(_request: Any) -> None:
        raise error

    with pytest.raises(Aborted):
        watched.unary(verb)
    assert watched.log == [("DEBUG", "rpc begins", ""), ("ERROR", "rpc fails", "INTERNAL")]
    traced = caplog.records[-1].exc_info
    assert (traced[1] if traced else None) is trace


def test_an_unforeseen_error_names_the_log_record_to_the_caller(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    async def verb(_request: Any) -> None:
        raise ValueError("secret")

    with pytest.raises(Aborted):
        watched.unary(verb)
    reference = getattr(caplog.records[-1], "reference", "")
    assert watched.context.aborted == (
        grpc.StatusCode.INTERNAL,
        f"internal error (ValueError), see {reference} in crispd's log",
    )


def test_a_caller_that_leaves_ends_the_call_and_is_counted(watched: Watched) -> None:
    handle = watched.door.unary("RuntimeService", "ExecSync", lambda _request: asyncio.Event().wait())

    async def leave() -> None:
        task = asyncio.create_task(handle(REQUEST, watched.context))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leave())
    assert watched.context.aborted is None
    assert watched.codes == [("ExecSync", "CANCELLED")]


def test_work_done_for_a_call_knows_the_call_and_its_objects(watched: Watched) -> None:
    seen: list[dict[str, str]] = []

    async def verb(_request: Any) -> None:
        seen.append(logcontext.fields())
        await asyncio.create_task(deeper())

    async def deeper() -> None:
        seen.append(logcontext.fields())

    async def both() -> None:
        request = cri_pb2.CreateContainerRequest(pod_sandbox_id="p1")
        await watched.door.unary("RuntimeService", "CreateContainer", verb)(request, watched.context)
        seen.append(logcontext.fields())

    asyncio.run(both())
    rpc = seen[0]["rpc"]
    assert rpc.startswith("CreateContainer/")
    assert seen == [{"rpc": rpc, "pod": "p1"}, {"rpc": rpc, "pod": "p1"}, {}]


def test_a_stream_sends_what_is_yielded(watched: Watched) -> None:
    async def verb(_request: Any) -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    watched.stream(verb)
    assert watched.context.sent == [1, 2]
    assert watched.codes == [("GetContainerEvents", "OK")]


def test_a_stream_that_fails_becomes_a_code(watched: Watched) -> None:
    async def verb(_request: Any) -> AsyncGenerator[int, None]:
        yield 1
        raise Absent("gone")

    with pytest.raises(Aborted):
        watched.stream(verb)
    assert watched.context.sent == [1]
    assert watched.context.aborted == (grpc.StatusCode.NOT_FOUND, "gone")


def test_a_stream_whose_caller_leaves_is_closed(watched: Watched) -> None:
    closed: list[bool] = []

    async def verb(_request: Any) -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    handle = watched.door.stream("RuntimeService", "GetContainerEvents", verb)

    async def leave() -> None:
        task = asyncio.create_task(handle(cri_pb2.GetEventsRequest(), watched.context))
        while not watched.context.sent:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert closed == [True]

    asyncio.run(leave())
    assert watched.codes == [("GetContainerEvents", "CANCELLED")]
