"""Which changes of the store are events of CRI, for whom, and what they take along."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from api.proto import cri_pb2
from api.translate import events
from shim.records import ContainerState as C
from shim.records import PodState as P
from shim.state.store import Change
from tests.unit.api import doubles, records

NAMES = {
    cri_pb2.CONTAINER_CREATED_EVENT: "created",
    cri_pb2.CONTAINER_STARTED_EVENT: "started",
    cri_pb2.CONTAINER_STOPPED_EVENT: "stopped",
    cri_pb2.CONTAINER_DELETED_EVENT: "deleted",
}


def told(of: events.Events, change: Change) -> list[str]:
    return [NAMES[event.kind] for event in of.of(change)]


def watching(realm: str = "kubelet") -> tuple[doubles.Records, events.Events]:
    store = doubles.Records()
    store.put(records.pod())
    return store, events.Events(store, realm)


@pytest.mark.parametrize("before", [None, *C])
@pytest.mark.parametrize("after", C)
def test_a_container_s_steps_are_told_and_nothing_else(before: C | None, after: C) -> None:
    steps = {
        (C.CREATING, C.CREATED): ["created"],
        (None, C.CREATED): ["created"],
        (C.CREATED, C.RUNNING): ["started"],
        (C.STARTING, C.RUNNING): ["started"],
        (C.STARTING, C.EXITED): ["stopped"],
        (C.RUNNING, C.EXITED): ["stopped"],
        (C.UNKNOWN, C.EXITED): ["stopped"],
    }
    _, of = watching()
    was = None if before is None else records.container(state=before)
    assert told(of, Change(1, was, records.container(state=after))) == steps.get((before, after), [])


def test_a_pod_s_life_has_each_event_once_however_often_it_is_stopped() -> None:
    _, of = watching()
    life = [P.CREATING, P.READY, P.NOTREADY, P.STOPPING, P.NOTREADY, P.STOPPING, P.NOTREADY, P.REMOVING]
    heard = []
    for before, after in pairwise(life):
        heard += told(of, Change(1, records.pod(state=before), records.pod(state=after)))
    heard += told(of, Change(1, records.pod(state=P.REMOVING), None))
    assert heard == ["created", "started", "stopped", "deleted"]


def test_an_event_takes_the_pod_and_its_finished_members_along() -> None:
    store, of = watching()
    half_made = records.container(id="half", created_at=0)
    for member in (records.container(), half_made):
        store.put(member)
    (event,) = of.of(Change(1, records.container(), None))
    wire = events.to_wire(event, lambda _name: None)
    assert (wire.container_id, wire.pod_sandbox_status.id) == (records.container().id, records.pod().id)
    assert [status.id for status in wire.containers_statuses] == [records.container().id]
    assert wire.created_at == event.time > 0


def test_objects_that_nobody_was_given_and_other_realms_are_not_told_of() -> None:
    _, of = watching()
    unborn = records.container(created_at=0, state=C.REMOVING)
    assert told(of, Change(1, None, unborn)) == []
    assert told(of, Change(1, unborn, None)) == []
    assert told(of, Change(1, records.pod(created_at=0), None)) == []
    assert told(of, Change(1, None, records.image())) == []
    _, other = watching("run")
    assert told(other, Change(1, records.pod(state=P.CREATING), records.pod())) == []
    assert told(other, Change(1, replace(records.container(), realm="run"), None)) == ["deleted"]
