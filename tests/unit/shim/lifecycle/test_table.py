"""Every (state, event) pair is decided: what is not in the tables is refused."""

from __future__ import annotations

import itertools

import pytest

from oci.errors import WrongState
from shim.lifecycle.table import (
    CONTAINER,
    POD,
    ContainerEvent,
    PodEvent,
    mermaid,
    next_container_state,
    next_pod_state,
)
from shim.records import ContainerState, PodState

# Written out a second time, by hand, from the contract: state -> the events that it allows.
ALLOWED_POD = {
    PodState.CREATING: {"COMMIT", "REMOVE"},
    PodState.READY: {"STOP", "DIED", "REMOVE"},
    PodState.STOPPING: {"STOP", "STOPPED", "DIED", "REMOVE"},
    PodState.NOTREADY: {"STOP", "STOPPED", "DIED", "REMOVE"},
    PodState.REMOVING: {"REMOVE"},
}
ALLOWED_CONTAINER = {
    ContainerState.CREATING: {"COMMIT", "REMOVE"},
    ContainerState.CREATED: {"START", "REMOVE"},
    ContainerState.STARTING: {"STARTED", "FAILED", "EXIT", "RESET", "LOST"},
    ContainerState.RUNNING: {"EXIT", "LOST"},
    ContainerState.UNKNOWN: {"EXIT", "STARTED", "REMOVE"},
    ContainerState.EXITED: {"REMOVE"},
    ContainerState.REMOVING: {"EXIT", "REMOVE"},
}


@pytest.mark.parametrize(("state", "event"), [*itertools.product(PodState, PodEvent)])
def test_a_pod_takes_exactly_the_steps_of_its_contract(state: PodState, event: PodEvent) -> None:
    if event.name in ALLOWED_POD[state]:
        assert next_pod_state(state, event) is POD[state, event]
    else:
        with pytest.raises(WrongState, match=f"is {state.value}: {event.value} is not possible"):
            next_pod_state(state, event)


@pytest.mark.parametrize(("state", "event"), [*itertools.product(ContainerState, ContainerEvent)])
def test_a_container_takes_exactly_the_steps_of_its_contract(
    state: ContainerState, event: ContainerEvent
) -> None:
    if event.name in ALLOWED_CONTAINER[state]:
        assert next_container_state(state, event) is CONTAINER[state, event]
    else:
        with pytest.raises(WrongState, match=f"is {state.value}: {event.value} is not possible"):
            next_container_state(state, event)


def test_a_container_never_goes_back_except_when_its_start_left_no_trace() -> None:
    order = [
        ContainerState.CREATING,
        ContainerState.CREATED,
        ContainerState.STARTING,
        ContainerState.RUNNING,
        ContainerState.UNKNOWN,
        ContainerState.EXITED,
        ContainerState.REMOVING,
    ]
    back = {
        (state, event)
        for (state, event), after in CONTAINER.items()
        if order.index(after) < order.index(state)
    }
    assert back == {
        (ContainerState.STARTING, ContainerEvent.RESET),
        (ContainerState.UNKNOWN, ContainerEvent.STARTED),
    }


def test_the_diagram_has_a_line_for_every_step() -> None:
    lines = mermaid(POD).splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert lines[1] == "    creating --> ready: set up"
    assert len(lines) == 1 + len(POD)
