"""What a start does with each object, by what its record says and what the machine shows."""

from __future__ import annotations

import pytest

from oci.workload import (
    ContainerId,
    ContainerMetadata,
    ContainerSpec,
    ImageId,
    ImageSpec,
    PodId,
    PodMetadata,
    PodSpec,
)
from shim.records import ContainerRecord, ContainerState, PodRecord, PodState, ProcessRef
from shim.recovery import Action, PodView, Step, plan
from shim.runtimes.driver import Exit, Observed, Status

POD, CONTAINER = PodId("a" * 64), ContainerId("b" * 64)
WELL = PodView(intact=True, init_alive=True)
ENDED = Observed(status=Status.STOPPED, exit=Exit(code=3, finished_at=9))


def pod(state: PodState, *, created_at: int = 5) -> PodRecord:
    return PodRecord(
        id=POD,
        realm="kubelet",
        spec=PodSpec(metadata=PodMetadata(name="p", namespace="n", uid="u")),
        state=state,
        created_at=created_at,
        handler="runc",
    )


def container(state: ContainerState) -> ContainerRecord:
    return ContainerRecord(
        id=CONTAINER,
        pod_id=POD,
        realm="kubelet",
        spec=ContainerSpec(metadata=ContainerMetadata(name="c"), image=ImageSpec(image="i")),
        state=state,
        created_at=6,
        handler="runc",
        image_id=ImageId("sha256:c"),
    )


def of_pod(record: PodRecord, view: PodView = WELL) -> list[Action]:
    return plan([record], [], {POD: view}, {}, {})


def of_container(
    record: ContainerRecord, seen: Observed | None = None, *, mounted: bool = True
) -> list[Step]:
    observed = {} if seen is None else {CONTAINER: seen}
    actions = plan([pod(PodState.READY)], [record], {POD: WELL}, observed, {CONTAINER: mounted})
    assert all(action.observed == seen for action in actions)
    return [action.step for action in actions]


@pytest.mark.parametrize(
    ("record", "view", "steps"),
    [
        (pod(PodState.READY), WELL, []),
        (pod(PodState.READY), PodView(intact=False, init_alive=True), [Step.DOWN]),
        (pod(PodState.READY), PodView(intact=True, init_alive=False), [Step.DOWN]),
        (pod(PodState.CREATING, created_at=0), WELL, [Step.REMOVE]),
        (pod(PodState.STOPPING), WELL, [Step.STOP]),
        (pod(PodState.NOTREADY), WELL, []),
        (pod(PodState.REMOVING), WELL, [Step.STOP]),
        (pod(PodState.REMOVING, created_at=0), WELL, [Step.REMOVE]),
    ],
    ids=lambda value: value.state.value if isinstance(value, PodRecord) else None,
)
def test_a_pod_is_kept_or_brought_to_what_was_begun(
    record: PodRecord, view: PodView, steps: list[Step]
) -> None:
    assert of_pod(record, view) == [Action(id=POD, step=step) for step in steps]


@pytest.mark.parametrize(
    ("state", "seen", "steps"),
    [
        (ContainerState.CREATING, None, [Step.REMOVE]),
        (ContainerState.REMOVING, None, [Step.REMOVE]),
        (ContainerState.CREATED, None, []),
        (ContainerState.EXITED, None, []),
        (ContainerState.STARTING, Observed(status=Status.ABSENT), [Step.RESET]),
        (ContainerState.STARTING, Observed(status=Status.CREATED), [Step.RESET]),
        (ContainerState.STARTING, Observed(status=Status.UNKNOWN), [Step.END]),
        (ContainerState.STARTING, ENDED, [Step.END]),
        (ContainerState.STARTING, Observed(status=Status.RUNNING), [Step.RUN]),
        (ContainerState.RUNNING, Observed(status=Status.RUNNING), [Step.RUN]),
        (ContainerState.RUNNING, Observed(status=Status.ABSENT), [Step.END]),
        (ContainerState.RUNNING, ENDED, [Step.END]),
        (ContainerState.UNKNOWN, Observed(status=Status.RUNNING), [Step.RUN]),
        (ContainerState.UNKNOWN, Observed(status=Status.UNKNOWN), [Step.END]),
    ],
)
def test_a_container_is_what_the_machine_shows(
    state: ContainerState, seen: Observed | None, steps: list[Step]
) -> None:
    assert of_container(container(state), seen) == steps


def test_a_prepared_container_whose_root_file_system_went_with_the_boot_is_mounted_again() -> None:
    assert of_container(container(ContainerState.CREATED), mounted=False) == [Step.REMOUNT]


@pytest.mark.parametrize("process", [None, ProcessRef(pid=7, start_time=8)])
def test_a_container_whose_pod_is_lost_is_removed_whatever_it_does(process: ProcessRef | None) -> None:
    seen = Observed(status=Status.RUNNING, process=process)
    assert plan([], [container(ContainerState.RUNNING)], {}, {CONTAINER: seen}, {}) == [
        Action(id=CONTAINER, step=Step.REMOVE, observed=seen)
    ]


def test_containers_come_before_their_pods() -> None:
    actions = plan(
        [pod(PodState.CREATING, created_at=0)],
        [container(ContainerState.CREATING)],
        {},
        {},
        {CONTAINER: True},
    )
    assert [action.id for action in actions] == [CONTAINER, POD]
