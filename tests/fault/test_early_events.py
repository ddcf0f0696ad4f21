"""An end is announced before it is on the disk; a daemon killed in between comes back with the same."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.daemon import CALL_LIMIT, Daemon
from tests.fault import cri
from tests.fault.rig import settings_of
from tests.fault.test_bad_days import until

KEPT = ("id", "state", "exit_code", "reason", "started_at", "finished_at")
PATIENCE = 1.0  # seconds for an answer that must not come
LIMIT = 20.0  # seconds for an event


@contextlib.contextmanager
def events(daemon: Daemon) -> Iterator[Any]:
    stream = daemon.runtime().GetContainerEvents(cri_pb2.GetEventsRequest(), timeout=LIMIT)
    stream.initial_metadata()  # the subscription stands
    try:
        yield stream
    finally:
        stream.cancel()


def stopped(stream: Any, container: str) -> dict[str, Any]:
    """What the event of the container's end says of it."""
    for event in stream:
        if event.container_event_type == cri_pb2.CONTAINER_STOPPED_EVENT and event.container_id == container:
            (status,) = event.containers_statuses
            return told(status)
    raise AssertionError("the stream ended without the event")


def told(status: Any) -> dict[str, Any]:
    return {name: getattr(status, name) for name in KEPT}


def shown(life: cri.Life) -> dict[str, Any]:
    """What ContainerStatus says, once the list has said the same state."""
    runtime = life.daemon.runtime()
    (listed,) = runtime.ListContainers(cri_pb2.ListContainersRequest(), timeout=CALL_LIMIT).containers
    request = cri_pb2.ContainerStatusRequest(container_id=life.container_id)
    status = runtime.ContainerStatus(request, timeout=CALL_LIMIT).status
    assert listed.state == status.state
    return told(status)


@pytest.mark.parametrize("handler", ["runc", "crun", "shim-runc-v2"])
def test_an_end_is_told_before_it_is_on_the_disk_and_a_kill_then_changes_nothing_of_it(
    daemon: Daemon, handler: str
) -> None:
    stall = daemon.directory / "stall"
    daemon.program = ("-m", "tests.fault.stalled", str(stall))
    daemon.overrides = settings_of(handler)
    daemon.restart()
    cri.pull(daemon)
    life = cri.Life(daemon=daemon, name="early", handler=handler)
    life.start()
    until(lambda: "up" in life.log.read_text())  # its trap is set
    process = life.seen()["process"]
    with events(daemon) as stream:
        stall.touch()
        os.kill(process, signal.SIGTERM)
        announced = stopped(stream, life.container_id)
        assert announced["exit_code"] == 3
        assert shown(life) == announced
        # Whoever waits for the end itself is answered when it is on the disk.
        stop = cri_pb2.StopContainerRequest(container_id=life.container_id, timeout=5)
        with pytest.raises(grpc.RpcError) as waited:
            daemon.runtime().StopContainer(stop, timeout=PATIENCE)
        assert waited.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    daemon.kill()
    stall.unlink()
    daemon.start()
    assert shown(life) == announced
    life.ask("StopContainer")
    assert shown(life) == announced
    daemon.restart()
    assert shown(life) == announced
    daemon.remove_all_pods()
