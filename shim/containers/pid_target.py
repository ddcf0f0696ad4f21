"""The container whose PID namespace another one joins (CRI NamespaceMode TARGET)."""

from __future__ import annotations

from oci.errors import Absent, BadInput
from oci.workload import ContainerSpec, NamespaceMode, PodId
from shim.containers.lookup import get_container
from shim.records import ContainerState
from shim.state.store import Store

_FIELD = "config.linux.security_context.namespace_options.target_id"


def pid_target(store: Store, realm: str, pod: PodId, spec: ContainerSpec) -> str:
    """The path of the namespace, "" where the request is of another mode.

    Asked at the creation and again at the start, since the number of a process that ended goes to others.
    Raises BadInput unless the target runs in the same pod.
    """
    options = spec.security.namespaces
    if options.pid is not NamespaceMode.TARGET:
        return ""
    try:
        other = get_container(store, realm, options.target_id)
    except Absent as error:
        raise BadInput(f"{_FIELD}: {error}") from error
    if other.pod_id != pod or other.state is not ContainerState.RUNNING or other.process is None:
        raise BadInput(f"{_FIELD}: container {other.id} does not run in pod sandbox {pod}")
    return f"/proc/{other.process.pid}/ns/pid"
