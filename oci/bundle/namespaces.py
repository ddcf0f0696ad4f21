"""Which namespaces a container joins or gets (runtime-spec config-linux.md; CRI NamespaceOption).

The pod's namespaces are pinned before; here are only their paths. An entry with a path is joined, one
without is made new, a kind that is not listed stays the host's.
"""

from __future__ import annotations

from oci.bundle.inputs import BundleInputs, NamespacePaths, SandboxInitInputs
from oci.errors import BadInput, WrongState
from oci.facts import ResolvedUser
from oci.workload import IdMapping, NamespaceMode, NamespaceOptions, UserNamespace

_FIELD = "config.linux.security_context.namespace_options"


def check(container: NamespaceOptions, pod: NamespaceOptions) -> None:
    """Refuse what a container cannot ask for in this pod; raises BadInput naming the member."""
    for name, mode in (("network", container.network), ("ipc", container.ipc)):
        if mode in (NamespaceMode.CONTAINER, NamespaceMode.TARGET):
            raise BadInput(f"{_FIELD}.{name}: {mode.name} is not possible, only POD and NODE")
    if container.pid is NamespaceMode.TARGET and not container.target_id:
        raise BadInput(f"{_FIELD}.target_id: empty, with pid mode TARGET")
    if container.user_requested and container.user != pod.user:
        raise BadInput(f"{_FIELD}.userns_options: differ from those of the pod")


def namespaces(inputs: BundleInputs) -> list[dict[str, str]]:
    """The `linux.namespaces` list of a container."""
    asked, pod = inputs.container.security.namespaces, inputs.pod.security.namespaces
    check(asked, pod)
    paths = inputs.namespaces
    made = [{"type": "mount"}]
    made += _shared(pod, paths)
    if asked.pid is NamespaceMode.CONTAINER:
        made.append({"type": "pid"})
    elif asked.pid in (NamespaceMode.POD, NamespaceMode.TARGET):
        if not paths.pid:
            whose = "pod" if asked.pid is NamespaceMode.POD else f"target container {asked.target_id}"
            raise WrongState(f"{_FIELD}.pid: the {whose} has no PID namespace to join")
        made.append({"type": "pid", "path": paths.pid})
    if private_cgroup_namespace(inputs.host.cgroup.version, privileged=inputs.container.security.privileged):
        made.append({"type": "cgroup"})
    return made


def init_namespaces(inputs: SandboxInitInputs) -> list[dict[str, str]]:
    """The `linux.namespaces` list of a pod's first process: it makes the PID namespace of the pod."""
    paths = inputs.namespaces
    made = [{"type": "mount"}]
    made += _shared(inputs.pod.security.namespaces, paths)
    if inputs.pod.security.namespaces.pid is not NamespaceMode.NODE:
        made.append({"type": "pid"})
    return made


def private_cgroup_namespace(version: int, *, privileged: bool) -> bool:
    """On version 2 a container sees its own cgroup as the root; on version 1 it never did."""
    return version == 2 and not privileged


def _shared(pod: NamespaceOptions, paths: NamespacePaths) -> list[dict[str, str]]:
    """What all of the pod's containers live in: the pod's request decides, UTS goes with the network.

    A namespace that the pod should have and that is not pinned is an error: leaving the entry out would put
    the container into the host's.
    """
    wanted = (
        ("user", pod.user is not None, paths.user),
        ("network", pod.network is not NamespaceMode.NODE, paths.network),
        ("ipc", pod.ipc is not NamespaceMode.NODE, paths.ipc),
        ("uts", pod.network is not NamespaceMode.NODE, paths.uts),
    )
    missing = [name for name, own, path in wanted if own and not path]
    if missing:
        raise WrongState(f"the pod has no pinned namespace of kind {', '.join(missing)}")
    return [{"type": name, "path": path} for name, own, path in wanted if own]


def id_mappings(user: UserNamespace | None) -> dict[str, list[dict[str, int]]]:
    """uidMappings and gidMappings of `linux`; nothing without a user namespace.

    They are given beside the path of the pinned namespace, because a runtime needs them to idmap mounts.
    """
    if user is None:
        return {}
    return {"uidMappings": mappings(user.uids), "gidMappings": mappings(user.gids)}


def check_identity(user: ResolvedUser, namespace: UserNamespace | None) -> None:
    """Refuse an identity that the pod's user namespace does not have: BadInput naming the member."""
    if namespace is None:
        return
    security = "config.linux.security_context"
    if namespace.host_uid(user.uid) is None:
        raise BadInput(f"{security}.run_as_user: {user.uid} is not mapped in the pod's user namespace")
    for member, gid in (("run_as_group", user.gid), *(("supplemental_groups", gid) for gid in user.groups)):
        if namespace.host_gid(gid) is None:
            raise BadInput(f"{security}.{member}: {gid} is not mapped in the pod's user namespace")


def mappings(lines: tuple[IdMapping, ...]) -> list[dict[str, int]]:
    """Mapping lines under the specification's names."""
    return [{"containerID": m.container_id, "hostID": m.host_id, "size": m.length} for m in lines]
