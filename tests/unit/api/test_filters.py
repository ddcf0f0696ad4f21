from __future__ import annotations

from dataclasses import replace

import pytest

from api.proto import cri_pb2
from api.translate import filters
from oci.workload import ContainerId, PodId
from shim.records import ContainerRecord, ContainerState, PodRecord, PodState
from tests.unit.api import records

READY, STOPPED, MADE = (character * 64 for character in "abc")


def pods() -> list[PodRecord]:
    spec = replace(records.pod().spec, labels={"app": "web", "tier": "1"})
    return [
        records.pod(id=PodId(READY), spec=spec),
        records.pod(id=PodId(STOPPED), state=PodState.NOTREADY),
        records.pod(id=PodId(MADE), state=PodState.CREATING),
    ]


def pod_state(number: int) -> cri_pb2.PodSandboxStateValue:
    return cri_pb2.PodSandboxStateValue(state=cri_pb2.PodSandboxState.ValueType(number))


PODS = [
    (cri_pb2.PodSandboxFilter(), [READY, STOPPED]),
    (cri_pb2.PodSandboxFilter(id=READY), [READY]),
    (cri_pb2.PodSandboxFilter(id=READY[:7]), [READY]),
    (cri_pb2.PodSandboxFilter(id="f" * 64), []),
    (cri_pb2.PodSandboxFilter(id=MADE), []),
    (cri_pb2.PodSandboxFilter(id="../x"), []),
    (cri_pb2.PodSandboxFilter(state=pod_state(0)), [READY]),
    (cri_pb2.PodSandboxFilter(state=pod_state(1)), [STOPPED]),
    (cri_pb2.PodSandboxFilter(label_selector={"app": "web"}), [READY, STOPPED]),
    (cri_pb2.PodSandboxFilter(label_selector={"app": "web", "tier": "1"}), [READY]),
    (cri_pb2.PodSandboxFilter(label_selector={"app": "we"}), []),
    (cri_pb2.PodSandboxFilter(label_selector={"tier": ""}), []),
    (cri_pb2.PodSandboxFilter(id=READY, state=pod_state(1)), []),
]


@pytest.mark.parametrize(("wanted", "expected"), PODS)
def test_set_members_of_a_pod_filter_are_anded(wanted: cri_pb2.PodSandboxFilter, expected: list[str]) -> None:
    assert [record.id for record in filters.pods(pods(), wanted)] == expected


RUNNING, CREATED, EXITED = (character * 64 for character in "def")


def containers() -> list[ContainerRecord]:
    labelled = replace(records.container().spec, labels={"x": "y"})
    return [
        records.container(id=ContainerId(RUNNING), pod_id=PodId(READY), spec=labelled),
        records.container(id=ContainerId(CREATED), pod_id=PodId(READY), state=ContainerState.CREATED),
        records.container(
            id=ContainerId(EXITED), pod_id=PodId(STOPPED), state=ContainerState.EXITED, finished_at=9
        ),
        records.container(id=ContainerId(MADE), pod_id=PodId(READY), state=ContainerState.CREATING),
    ]


def state(number: int) -> cri_pb2.ContainerStateValue:
    return cri_pb2.ContainerStateValue(state=cri_pb2.ContainerState.ValueType(number))


CONTAINERS = [
    (cri_pb2.ContainerFilter(), [RUNNING, CREATED, EXITED]),
    (cri_pb2.ContainerFilter(id=CREATED[:12]), [CREATED]),
    (cri_pb2.ContainerFilter(id=MADE), []),
    (cri_pb2.ContainerFilter(state=state(0)), [CREATED]),
    (cri_pb2.ContainerFilter(state=state(1)), [RUNNING]),
    (cri_pb2.ContainerFilter(state=state(2)), [EXITED]),
    (cri_pb2.ContainerFilter(state=state(3)), []),
    (cri_pb2.ContainerFilter(pod_sandbox_id=READY[:5]), [RUNNING, CREATED]),
    (cri_pb2.ContainerFilter(pod_sandbox_id=READY, state=state(1)), [RUNNING]),
    (cri_pb2.ContainerFilter(label_selector={"x": "y"}), [RUNNING]),
]


@pytest.mark.parametrize(("wanted", "expected"), CONTAINERS)
def test_set_members_of_a_container_filter_are_anded(
    wanted: cri_pb2.ContainerFilter, expected: list[str]
) -> None:
    assert [record.id for record in filters.containers(containers(), wanted)] == expected


STATS = [
    (cri_pb2.ContainerStatsFilter(), [RUNNING]),
    (cri_pb2.ContainerStatsFilter(id=EXITED), []),
    (cri_pb2.ContainerStatsFilter(pod_sandbox_id=READY), [RUNNING]),
    (cri_pb2.ContainerStatsFilter(pod_sandbox_id=STOPPED), []),
    (cri_pb2.ContainerStatsFilter(label_selector={"x": "z"}), []),
]


@pytest.mark.parametrize(("wanted", "expected"), STATS)
def test_only_running_containers_have_usage(
    wanted: cri_pb2.ContainerStatsFilter, expected: list[str]
) -> None:
    assert [record.id for record in filters.running(containers(), wanted)] == expected
