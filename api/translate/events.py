"""The store's changes -> what CRI calls container events, for containers and for pods themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from api.changes import Records
from api.proto import cri_pb2
from api.translate import containers, pods
from api.translate.containers import FindImage
from oci.workload import PodId
from shim.records import ContainerRecord, ContainerState, PodRecord, PodState
from shim.state.store import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event, with the pod and its containers as they were at that moment."""

    id: str  # of the container, or of the pod for its own events
    kind: cri_pb2.ContainerEventType.ValueType
    time: int  # nanoseconds since the epoch
    pod: PodRecord
    members: tuple[ContainerRecord, ...]


class Events:
    """What one watcher of a realm is told. Remembers which pods it has called stopped: that comes once."""

    def __init__(self, records: Records, realm: str) -> None:
        self._records = records
        self._realm = realm
        self._stopped: set[PodId] = set()

    def of(self, change: Change) -> Iterator[Event]:
        """The events of one change: none, one, or two for a pod, which is created and started at once."""
        record = change.after if change.after is not None else change.before
        if not isinstance(record, PodRecord | ContainerRecord) or record.realm != self._realm:
            return
        if record.created_at == 0:
            return  # being made, or never finished: no caller knows of it
        if isinstance(record, PodRecord):
            pod, kinds = record, self._pod(change, record)
        else:
            found = self._records.pods.get(record.pod_id)
            if found is None:
                return  # kubelet cannot use an event without its pod
            pod, kinds = found, list(_container(change, record))
        for kind in kinds:
            yield Event(
                id=record.id,
                kind=kind,
                time=time.time_ns(),
                pod=pod,
                members=tuple(c for c in self._records.containers_of(pod.id) if c.created_at > 0),
            )

    def _pod(self, change: Change, record: PodRecord) -> list[cri_pb2.ContainerEventType.ValueType]:
        if change.after is None:
            self._stopped.discard(record.id)
            return [cri_pb2.CONTAINER_DELETED_EVENT]
        before = change.before.state if isinstance(change.before, PodRecord) else PodState.CREATING
        if record.state is PodState.READY and before is PodState.CREATING:
            return [cri_pb2.CONTAINER_CREATED_EVENT, cri_pb2.CONTAINER_STARTED_EVENT]
        stopped = record.state is PodState.NOTREADY and before is not PodState.NOTREADY
        if not stopped or record.id in self._stopped:
            return []
        self._stopped.add(record.id)
        return [cri_pb2.CONTAINER_STOPPED_EVENT]


def _container(change: Change, record: ContainerRecord) -> Iterator[cri_pb2.ContainerEventType.ValueType]:
    if change.after is None:
        yield cri_pb2.CONTAINER_DELETED_EVENT
        return
    before = change.before.state if isinstance(change.before, ContainerRecord) else ContainerState.CREATING
    match before, record.state:
        case ContainerState.CREATING, ContainerState.CREATED:
            yield cri_pb2.CONTAINER_CREATED_EVENT
        case ((ContainerState.CREATED | ContainerState.STARTING), ContainerState.RUNNING):
            yield cri_pb2.CONTAINER_STARTED_EVENT
        case (
            (ContainerState.STARTING | ContainerState.RUNNING | ContainerState.UNKNOWN),
            ContainerState.EXITED,
        ):
            yield cri_pb2.CONTAINER_STOPPED_EVENT


def to_wire(event: Event, find_image: FindImage) -> cri_pb2.ContainerEventResponse:
    return cri_pb2.ContainerEventResponse(
        container_id=event.id,
        container_event_type=event.kind,
        created_at=event.time,
        pod_sandbox_status=pods.status(event.pod),
        containers_statuses=[containers.status(record, find_image) for record in event.members],
    )
