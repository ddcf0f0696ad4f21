"""Which objects a list shows: set members of a filter are ANDed, an empty filter lets everything through.

Objects that are being made are in no list: only what a caller may use is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from api.proto import cri_pb2
from api.translate.containers import container_state
from api.translate.pods import pod_state
from shim.records import ContainerRecord, ContainerState, PodRecord, PodState


def visible_pod(pod: PodRecord) -> bool:
    return pod.state is not PodState.CREATING


def visible_container(container: ContainerRecord) -> bool:
    return container.state is not ContainerState.CREATING


def pods(records: Iterable[PodRecord], wanted: cri_pb2.PodSandboxFilter) -> list[PodRecord]:
    state = wanted.state.state if wanted.HasField("state") else None
    return [
        record
        for record in records
        if visible_pod(record)
        and record.id.startswith(wanted.id)
        and (state is None or pod_state(record) == state)
        and _labelled(record.spec.labels, wanted.label_selector)
    ]


def containers(records: Iterable[ContainerRecord], wanted: cri_pb2.ContainerFilter) -> list[ContainerRecord]:
    state = wanted.state.state if wanted.HasField("state") else None
    return [
        record
        for record in records
        if visible_container(record)
        and record.id.startswith(wanted.id)
        and record.pod_id.startswith(wanted.pod_sandbox_id)
        and (state is None or container_state(record) == state)
        and _labelled(record.spec.labels, wanted.label_selector)
    ]


def running(
    records: Iterable[ContainerRecord], wanted: cri_pb2.ContainerStatsFilter
) -> list[ContainerRecord]:
    """For usage: what does not run uses nothing."""
    return [
        record
        for record in records
        if record.state is ContainerState.RUNNING
        and record.id.startswith(wanted.id)
        and record.pod_id.startswith(wanted.pod_sandbox_id)
        and _labelled(record.spec.labels, wanted.label_selector)
    ]


def ready(records: Iterable[PodRecord], wanted: cri_pb2.PodSandboxStatsFilter) -> list[PodRecord]:
    """For usage: what is not READY uses nothing."""
    return [
        record
        for record in records
        if record.state is PodState.READY
        and record.id.startswith(wanted.id)
        and _labelled(record.spec.labels, wanted.label_selector)
    ]


def _labelled(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())
