"""Finding pods: by id or prefix, within one realm. A realm never sees another's objects."""

from __future__ import annotations

from oci import ids
from oci.errors import Absent
from oci.workload import PodId
from shim.records import PodRecord, PodState
from shim.rootfs import Owners
from shim.state.store import Store

_LISTED = (PodState.READY, PodState.STOPPING, PodState.NOTREADY, PodState.REMOVING)


def all_pods(store: Store, realm: str) -> list[PodRecord]:
    """The realm's pods that a list shows: those whose creation was committed."""
    return [pod for pod in store.pods.values() if pod.realm == realm and _shown(pod)]


def get_pod(store: Store, realm: str, id_: str) -> PodRecord:
    """The pod of that id or unambiguous prefix. Raises Absent, or BadInput for an ambiguous prefix."""
    known = [pod.id for pod in all_pods(store, realm)]
    return store.pods[ids.resolve(id_, known, what="pod sandbox", field="pod_sandbox_id")]


def find_pod(store: Store, realm: str, id_: str) -> PodRecord | None:
    """Like `get_pod`, None for one that does not exist."""
    try:
        return get_pod(store, realm, id_)
    except Absent:
        return None


def current(store: Store, id_: PodId) -> PodRecord:
    """The record as it is now. Raises Absent when it was removed meanwhile."""
    record = store.pods.get(id_)
    if record is None:
        raise Absent(f"pod sandbox {id_} does not exist any more")
    return record


def owners(pod: PodRecord) -> Owners | None:
    """Whose the files of the pod's containers are; None where the pod has no user namespace of its own."""
    user = pod.spec.security.namespaces.user
    return Owners(namespace=pod.namespaces.user, user=user) if user is not None else None


def _shown(pod: PodRecord) -> bool:
    # created_at is set by the commit: a pod whose creation failed and that still owes its cleanup has none.
    return pod.state in _LISTED and pod.created_at > 0
