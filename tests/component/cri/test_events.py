"""GetContainerEvents: each event after the state it announces, with its pod, to every watcher, once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client
from tests.daemon import Daemon

CREATED = cri_pb2.CONTAINER_CREATED_EVENT
STARTED = cri_pb2.CONTAINER_STARTED_EVENT
STOPPED = cri_pb2.CONTAINER_STOPPED_EVENT
DELETED = cri_pb2.CONTAINER_DELETED_EVENT


class Watcher:
    """Reads one stream in a thread; `look` runs at each event, before the next one is read."""

    def __init__(self, stream: Any, look: Callable[[Any], object]) -> None:
        self._stream = stream
        self._look = look
        self._news = threading.Condition()
        self.events: list[Any] = []
        self.seen: list[object] = []
        self.error: grpc.StatusCode | None = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self._stream:
                seen = self._look(event)
                with self._news:
                    self.events.append(event)
                    self.seen.append(seen)
                    self._news.notify_all()
        except grpc.RpcError as error:
            self.error = error.code()

    def until(self, id_: str, kind: int) -> None:
        def there() -> bool:
            return (id_, kind) in self.told

        with self._news:
            assert self._news.wait_for(there, 20), self.told

    @property
    def told(self) -> list[tuple[str, int]]:
        return [(event.container_id, event.container_event_type) for event in self.events]

    def ended(self) -> grpc.StatusCode | None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.error


@contextmanager
def watching(client: Client, look: Callable[[Any], object] = lambda event: None) -> Iterator[Watcher]:
    stream = client.runtime.GetContainerEvents(cri_pb2.GetEventsRequest())
    stream.initial_metadata()  # the subscription stands
    watcher = Watcher(stream, look)
    try:
        yield watcher
    finally:
        stream.cancel()
        watcher.ended()


def test_a_life_is_told_in_order_and_each_state_can_be_read_when_it_is_told(client: Client) -> None:
    asking = client.daemon.runtime()

    def look(event: Any) -> object:
        """What the calls say at the moment of the event."""
        id_ = event.container_id
        try:
            if id_ == event.pod_sandbox_status.id:
                request = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=id_)
                return asking.PodSandboxStatus(request, timeout=10).status.state
            return asking.ContainerStatus(
                cri_pb2.ContainerStatusRequest(container_id=id_), timeout=10
            ).status.state
        except grpc.RpcError as error:
            return error.code()

    with watching(client, look) as first, watching(client) as second:
        pod = client.run_pod()
        container = client.create(pod)
        first.until(container, CREATED)  # so that what is read at this event is this event's
        client.start(container)
        first.until(container, STARTED)
        client.stop_pod(pod)
        first.until(pod, STOPPED)
        client.remove_pod(pod)
        first.until(pod, DELETED)
        second.until(pod, DELETED)
    expected = [
        (pod, CREATED),
        (pod, STARTED),
        (container, CREATED),
        (container, STARTED),
        (container, STOPPED),
        (pod, STOPPED),
        (container, DELETED),
        (pod, DELETED),
    ]
    assert (first.told, second.told) == (expected, expected)
    assert first.seen == [
        *[cri_pb2.SANDBOX_READY] * 2,
        cri_pb2.CONTAINER_CREATED,
        cri_pb2.CONTAINER_RUNNING,
        cri_pb2.CONTAINER_EXITED,
        cri_pb2.SANDBOX_NOTREADY,
        *[grpc.StatusCode.NOT_FOUND] * 2,
    ]
    assert {event.pod_sandbox_status.id for event in first.events} == {pod}
    assert [[status.id for status in event.containers_statuses] for event in first.events] == [
        [], [], [container], [container], [container], [container], [], [],
    ]  # fmt: skip
    times = [event.created_at for event in first.events]
    assert times == sorted(times)
    assert times[0] > 0


def test_an_end_by_itself_is_told_once_with_its_code(client: Client) -> None:
    with watching(client) as watcher:
        pod = client.run_pod()
        container = client.run(pod, command=("sh", "-c", "exit 3"))
        watcher.until(container, STOPPED)
        client.stop(container)
        client.stop_pod(pod)
        client.remove_pod(pod)
        watcher.until(pod, DELETED)
    told = [event for event in watcher.events if event.container_id == container]
    assert [event.container_event_type for event in told] == [CREATED, STARTED, STOPPED, DELETED]
    status = told[2].containers_statuses[0]
    assert (status.id, status.state, status.exit_code) == (container, cri_pb2.CONTAINER_EXITED, 3)


def test_what_could_not_be_made_is_not_told(client: Client) -> None:
    with watching(client) as watcher:
        pod = client.run_pod()
        with pytest.raises(grpc.RpcError):
            client.create(pod, command=("true",), image="registry.k8s.io/none:1")
        client.remove_pod(pod)
        watcher.until(pod, DELETED)
    assert watcher.told == [(pod, CREATED), (pod, STARTED), (pod, STOPPED), (pod, DELETED)]


def test_the_other_realm_is_not_told_of(client: Client) -> None:
    stream = client.daemon.runtime(client.daemon.run_socket).GetContainerEvents(cri_pb2.GetEventsRequest())
    stream.initial_metadata()
    watcher = Watcher(stream, lambda event: None)
    with watching(client) as own:
        pod = client.run_pod()
        own.until(pod, STARTED)
    stream.cancel()
    watcher.ended()
    assert watcher.told == []


def test_a_watcher_that_does_not_read_holds_up_nobody(client: Client) -> None:
    """Its stream is left unread while others work; the lists stay current."""
    stream = client.runtime.GetContainerEvents(cri_pb2.GetEventsRequest())
    stream.initial_metadata()
    pod = client.run_pod()
    for n in range(5):
        container = client.create(pod, name=f"c{n}")
        client.remove(container)
    client.remove_pod(pod)
    stream.cancel()


def test_a_daemon_that_stops_ends_the_stream_at_once(daemon: Daemon) -> None:
    client = Client(daemon)
    stream = client.runtime.GetContainerEvents(cri_pb2.GetEventsRequest())
    stream.initial_metadata()
    watcher = Watcher(stream, lambda event: None)
    assert daemon.process is not None
    daemon.process.terminate()
    assert watcher.ended() == grpc.StatusCode.UNAVAILABLE
    assert daemon.process.wait(5) == 0
    daemon._forget()


def test_a_pod_s_status_carries_its_containers_and_the_time(client: Client) -> None:
    pod = client.run_pod()
    containers = [client.run(pod, "one"), client.create(pod, "two")]
    answer = client.call("PodSandboxStatus", cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod))
    told = list(answer.containers_statuses)
    assert sorted(told, key=lambda status: status.metadata.name) == [
        client.status(id_).status for id_ in containers
    ]
    assert answer.timestamp > max(status.created_at for status in told)
