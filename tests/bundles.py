"""Requests for tests of the bundle: a plain machine, a plain pod, a plain container, to be varied."""

from __future__ import annotations

from typing import Any

from oci.bundle import BundleDefaults, BundleInputs, HandlerTraits, NamespacePaths, PodFiles
from oci.bundle.capabilities import KNOWN
from oci.cgroup import CgroupPlace
from oci.facts import CgroupDriver, CgroupFacts, DeviceNode, HostFacts, ResolvedUser
from oci.image import ImageConfig
from oci.workload import (
    ContainerId,
    ContainerMetadata,
    ContainerSecurity,
    ContainerSpec,
    ImageSpec,
    NamespaceMode,
    NamespaceOptions,
    PodId,
    PodMetadata,
    PodSpec,
)

CONTAINER_ID = ContainerId("c" * 64)
POD_ID = PodId("f" * 64)
OWN_PID = NamespaceOptions(pid=NamespaceMode.CONTAINER)

V1 = CgroupFacts(
    version=1,
    driver=CgroupDriver.CGROUPFS,
    mounts={
        name: f"/sys/fs/cgroup/{name}"
        for name in ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids", "hugetlb")
    },
)
V2 = CgroupFacts(
    version=2,
    driver=CgroupDriver.SYSTEMD,
    mounts=dict.fromkeys(("cpu", "cpuset", "memory", "pids", "io", "hugetlb"), "/sys/fs/cgroup"),
)


def host(**changed: Any) -> HostFacts:
    """A machine with everything, on cgroup version 1."""
    members: dict[str, Any] = {
        "hostname": "node-1",
        "kernel": (6, 12, 0),
        "machine": "x86_64",
        "cgroup": V1,
        "capabilities": frozenset(KNOWN),
        "bounding": frozenset(KNOWN),
        "rlimits": {"RLIMIT_NOFILE": 1048576},
        "swap_accounting": True,
        "hugepage_sizes": ("2MB", "1GB"),
        "devices": (
            DeviceNode(path="/dev/kmsg", kind="c", major=1, minor=11, mode=0o644),
            DeviceNode(path="/dev/vda", kind="b", major=254, minor=0, mode=0o660, gid=6),
        ),
    }
    return HostFacts(**{**members, **changed})


def pod(**changed: Any) -> PodSpec:
    members: dict[str, Any] = {
        "metadata": PodMetadata(name="web", namespace="shop", uid="5f0c1e8e-0000-4000-8000-000000000001"),
        "hostname": "web-0",
        "log_directory": "/var/log/pods/shop_web",
        "cgroup_parent": "/kubepods/pod1",
    }
    return PodSpec(**{**members, **changed})


def container(**changed: Any) -> ContainerSpec:
    members: dict[str, Any] = {
        "metadata": ContainerMetadata(name="app"),
        "image": ImageSpec(image="sha256:" + "a" * 64, user_specified_image="busybox:1.36"),
        "command": ("/bin/app",),
        "security": ContainerSecurity(namespaces=OWN_PID),
    }
    return ContainerSpec(**{**members, **changed})


def inputs(**changed: Any) -> BundleInputs:
    """Complete inputs; `container`, `pod`, `host` and any other member can be given."""
    members: dict[str, Any] = {
        "id": CONTAINER_ID,
        "container": container(),
        "pod_id": POD_ID,
        "pod": pod(),
        "image": ImageConfig(env=("PATH=/usr/bin:/bin",), cmd=("sh",)),
        "image_name": "docker.io/library/busybox:1.36",
        "user": ResolvedUser(groups=(0,)),
        "host": host(),
        "handler": HandlerTraits(name="runc", recursive_read_only_mounts=True),
        "defaults": BundleDefaults(),
        "files": PodFiles(
            hosts="/var/lib/crisp/pods/f/hosts",
            hostname="/var/lib/crisp/pods/f/hostname",
            resolv_conf="/var/lib/crisp/pods/f/resolv.conf",
            shm="/var/lib/crisp/pods/f/shm",
        ),
        "namespaces": NamespacePaths(
            network="/run/netns/crisp-1", ipc="/run/crisp/ns/ipc-1", uts="/run/crisp/ns/uts-1"
        ),
        "cgroup": CgroupPlace(
            config_path=f"/kubepods/pod1/{CONTAINER_ID}",
            kernel_path=f"/kubepods/pod1/{CONTAINER_ID}",
            systemd=False,
        ),
    }
    return BundleInputs(**{**members, **changed})
