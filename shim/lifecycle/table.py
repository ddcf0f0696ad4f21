"""Which event takes which state where. This module decides every state change and does nothing else.

The diagrams in `docs/architecture.md` are generated from the two tables.
"""

from __future__ import annotations

from enum import Enum

from oci.errors import WrongState
from shim.records import ContainerState as C
from shim.records import PodState as P


class PodEvent(Enum):
    COMMIT = "set up"
    STOP = "stop"
    STOPPED = "stopped"
    DIED = "namespaces or first process gone"
    REMOVE = "remove"


class ContainerEvent(Enum):
    COMMIT = "prepared"
    START = "start"
    STARTED = "process runs"
    FAILED = "start failed"
    EXIT = "process ended"
    RESET = "the start left no trace"
    LOST = "cannot be observed"
    REMOVE = "remove"


POD: dict[tuple[P, PodEvent], P] = {
    (P.CREATING, PodEvent.COMMIT): P.READY,
    (P.CREATING, PodEvent.REMOVE): P.REMOVING,
    (P.READY, PodEvent.STOP): P.STOPPING,
    (P.READY, PodEvent.DIED): P.NOTREADY,
    (P.READY, PodEvent.REMOVE): P.STOPPING,
    (P.STOPPING, PodEvent.STOP): P.STOPPING,
    (P.STOPPING, PodEvent.STOPPED): P.NOTREADY,
    (P.STOPPING, PodEvent.DIED): P.STOPPING,
    (P.STOPPING, PodEvent.REMOVE): P.STOPPING,
    (P.NOTREADY, PodEvent.STOP): P.STOPPING,
    (P.NOTREADY, PodEvent.STOPPED): P.NOTREADY,
    (P.NOTREADY, PodEvent.DIED): P.NOTREADY,
    (P.NOTREADY, PodEvent.REMOVE): P.REMOVING,
    (P.REMOVING, PodEvent.REMOVE): P.REMOVING,
}

CONTAINER: dict[tuple[C, ContainerEvent], C] = {
    (C.CREATING, ContainerEvent.COMMIT): C.CREATED,
    (C.CREATING, ContainerEvent.REMOVE): C.REMOVING,
    (C.CREATED, ContainerEvent.START): C.STARTING,
    (C.CREATED, ContainerEvent.REMOVE): C.REMOVING,
    (C.STARTING, ContainerEvent.STARTED): C.RUNNING,
    (C.STARTING, ContainerEvent.FAILED): C.EXITED,
    (C.STARTING, ContainerEvent.EXIT): C.EXITED,
    (C.STARTING, ContainerEvent.RESET): C.CREATED,
    (C.STARTING, ContainerEvent.LOST): C.UNKNOWN,
    (C.RUNNING, ContainerEvent.EXIT): C.EXITED,
    (C.RUNNING, ContainerEvent.LOST): C.UNKNOWN,
    (C.UNKNOWN, ContainerEvent.EXIT): C.EXITED,
    (C.UNKNOWN, ContainerEvent.STARTED): C.RUNNING,
    (C.UNKNOWN, ContainerEvent.REMOVE): C.REMOVING,
    (C.EXITED, ContainerEvent.REMOVE): C.REMOVING,
    (C.REMOVING, ContainerEvent.EXIT): C.REMOVING,
    (C.REMOVING, ContainerEvent.REMOVE): C.REMOVING,
}


def next_pod_state(state: P, event: PodEvent, *, name: str = "pod sandbox") -> P:
    """The state after `event`; raises WrongState when the table has no such step."""
    try:
        return POD[state, event]
    except KeyError:
        raise WrongState(f"{name} is {state.value}: {event.value} is not possible") from None


def next_container_state(state: C, event: ContainerEvent, *, name: str = "container") -> C:
    """The state after `event`; raises WrongState when the table has no such step."""
    try:
        return CONTAINER[state, event]
    except KeyError:
        raise WrongState(f"{name} is {state.value}: {event.value} is not possible") from None


def mermaid(table: dict[tuple[P, PodEvent], P] | dict[tuple[C, ContainerEvent], C]) -> str:
    """A Mermaid state diagram of one table, one line a step, in the table's order."""
    lines = ["stateDiagram-v2"]
    for (state, event), after in table.items():
        lines.append(f"    {state.value} --> {after.value}: {event.value}")
    return "\n".join(lines)
