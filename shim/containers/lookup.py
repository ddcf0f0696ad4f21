"""Finding containers: by id or prefix, within one realm."""

from __future__ import annotations

from oci import ids
from oci.errors import Absent
from oci.workload import ContainerId
from shim.records import ContainerRecord, ContainerState
from shim.state.store import Store


def all_containers(store: Store, realm: str) -> list[ContainerRecord]:
    """The realm's containers that a list shows: those whose creation was committed."""
    return [c for c in store.containers.values() if c.realm == realm and c.created_at > 0]


def get_container(store: Store, realm: str, id_: str) -> ContainerRecord:
    """The container of that id or unambiguous prefix. Raises Absent, or BadInput for an ambiguous prefix."""
    known = [c.id for c in all_containers(store, realm)]
    return store.containers[ids.resolve(id_, known, what="container", field="container_id")]


def find_container(store: Store, realm: str, id_: str) -> ContainerRecord | None:
    """Like `get_container`, None for one that does not exist."""
    try:
        return get_container(store, realm, id_)
    except Absent:
        return None


def current(store: Store, id_: ContainerId) -> ContainerRecord:
    """The record as it is now. Raises Absent when it was removed meanwhile."""
    record = store.containers.get(id_)
    if record is None:
        raise Absent(f"container {id_} does not exist any more")
    return record


def has_process(record: ContainerRecord) -> bool:
    """Whether a process of it may live."""
    return record.state in (ContainerState.STARTING, ContainerState.RUNNING, ContainerState.UNKNOWN)
