"""Annotations of a config.json: what sandboxing runtimes read, and what the node lets through.

Two families name the pod to a runtime, containerd's and CRI-O's; gVisor and Kata read either. Annotations of
the request reach the runtime only where the handler's globs allow the key, and never replace these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from oci.bundle.inputs import BundleInputs, SandboxInitInputs
from oci.cgroup import CgroupPlace
from oci.errors import BadInput
from oci.workload import PodId, PodSpec, Resources

_CONTAINERD = "io.kubernetes.cri"
_CRIO = "io.kubernetes.cri-o"
_CRUN_SUBGROUP = "run.oci.systemd.subgroup"  # crun(1)
_MOST_BYTES = 256 * 1024  # Kubernetes' own bound on all annotations of an object


def container_annotations(inputs: BundleInputs) -> dict[str, str]:
    """The annotations of a container's config.json. Raises BadInput when the request's are too large."""
    name = inputs.container.metadata.name
    own = {
        **_pod(inputs.pod_id, inputs.pod, kind="container"),
        f"{_CONTAINERD}.container-name": name,
        f"{_CONTAINERD}.image-name": inputs.image_name,
        f"{_CRIO}.ContainerName": name,
        **_in_its_scope(inputs.cgroup),
    }
    return {
        **allowed(inputs.pod.annotations, inputs.handler.annotations, "sandbox_config.annotations"),
        **allowed(inputs.container.annotations, inputs.handler.annotations, "config.annotations"),
        **own,
    }


def init_annotations(inputs: SandboxInitInputs) -> dict[str, str]:
    """The annotations of the config.json of a pod's first process, with the sizes that VMs are made by."""
    own = {
        **_pod(inputs.pod_id, inputs.pod, kind="sandbox"),
        f"{_CONTAINERD}.sandbox-log-directory": inputs.pod.log_directory,
        f"{_CRIO}.ContainerName": "POD",
        **_sizes(inputs.pod.resources or Resources(), inputs.pod.overhead or Resources()),
        **_in_its_scope(inputs.cgroup),
    }
    return {**allowed(inputs.pod.annotations, inputs.handler.annotations, "config.annotations"), **own}


def _in_its_scope(place: CgroupPlace) -> dict[str, str]:
    """Keep crun from a cgroup of its own below systemd's scope: execs get theirs beside the container's.

    crun makes one called `container` on version 2 unless told, and looks there for an exec's group.
    """
    return {_CRUN_SUBGROUP: ""} if place.systemd else {}


def _pod(pod_id: PodId, pod: PodSpec, *, kind: str) -> dict[str, str]:
    metadata = pod.metadata
    return {
        f"{_CONTAINERD}.container-type": kind,
        f"{_CONTAINERD}.sandbox-id": pod_id,
        f"{_CONTAINERD}.sandbox-name": metadata.name,
        f"{_CONTAINERD}.sandbox-namespace": metadata.namespace,
        f"{_CONTAINERD}.sandbox-uid": metadata.uid,
        f"{_CRIO}.ContainerType": kind,
        f"{_CRIO}.SandboxID": pod_id,
        f"{_CRIO}.KubeName": metadata.name,
        f"{_CRIO}.Namespace": metadata.namespace,
    }


def _sizes(resources: Resources, overhead: Resources) -> dict[str, str]:
    return {
        f"{_CONTAINERD}.sandbox-cpu-period": str(resources.cpu_period or overhead.cpu_period),
        f"{_CONTAINERD}.sandbox-cpu-quota": str(resources.cpu_quota),
        f"{_CONTAINERD}.sandbox-cpu-shares": str(resources.cpu_shares),
        f"{_CONTAINERD}.sandbox-memory": str(resources.memory_limit),
    }


def allowed(annotations: Mapping[str, str], globs: Iterable[str], field: str) -> dict[str, str]:
    """Those whose key matches a glob. `*` alone opens everything, which only a node's settings can say."""
    size = sum(len(key) + len(value) for key, value in annotations.items())
    if size > _MOST_BYTES:
        raise BadInput(f"{field}: {size} characters together, over {_MOST_BYTES}")
    patterns = tuple(globs)
    return {
        key: value
        for key, value in annotations.items()
        if any(fnmatchcase(key, pattern) for pattern in patterns)
    }
