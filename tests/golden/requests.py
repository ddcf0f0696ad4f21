"""Representative requests, and their configurations as files: `python -m tests.golden.requests` writes them.

Run it after a deliberate change of what is built, and read the difference before committing it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from oci.bundle import (
    Built,
    BundleDefaults,
    HandlerTraits,
    NamespacePaths,
    ResolvedDevice,
    ResolvedMount,
    Rlimit,
    SandboxInitInputs,
    build,
    sandbox_init,
)
from oci.cgroup import place
from oci.facts import DeviceNode, Peering, ResolvedUser, SourceFacts
from oci.image import ImageConfig
from oci.workload import (
    Capabilities,
    ContainerSecurity,
    HugepageLimit,
    IdMapping,
    MountRequest,
    NamespaceMode,
    NamespaceOptions,
    PodSecurity,
    ProfileKind,
    Propagation,
    Resources,
    SecurityProfile,
    UserNamespace,
)
from tests import bundles

SPECS = Path(__file__).parent / "specs"
RUNTIME_DEFAULT = SecurityProfile(kind=ProfileKind.RUNTIME_DEFAULT)


def plain() -> Built:
    """What kubelet sends for a container with no more than an image, on cgroup version 1."""
    image = ImageConfig(env=("PATH=/usr/bin:/bin", "LANG=C"), entrypoint=("/entry",), cmd=("serve",))
    return build(bundles.inputs(container=bundles.container(command=()), image=image))


def restricted() -> Built:
    """Kubernetes' restricted profile, on version 2 with systemd: a user, no capability, a filter."""
    parent = "/kubepods.slice/kubepods-pod1.slice"
    asked = bundles.container(
        args=("--listen", ":8080"),
        working_dir="/srv",
        envs=(("MODE", "production"), ("EMPTY", "")),
        mounts=(
            MountRequest(container_path="/etc/hosts", host_path="/var/lib/kubelet/pods/1/etc-hosts"),
            MountRequest(container_path="/data/cache", host_path="/volumes/cache"),
            MountRequest(
                container_path="/data", host_path="/volumes/data", readonly=True, recursive_read_only=True
            ),
        ),
        resources=Resources(
            cpu_period=100000,
            cpu_quota=50000,
            cpu_shares=512,
            memory_limit=256 << 20,
            memory_swap_limit=256 << 20,
            oom_score_adj=936,
            hugepage_limits=(HugepageLimit(page_size="2MB", limit=0),),
            unified={"memory.oom.group": "1"},
        ),
        security=ContainerSecurity(
            namespaces=bundles.OWN_PID,
            capabilities=Capabilities(drop=("ALL",)),
            readonly_rootfs=True,
            no_new_privs=True,
            masked_paths=("/proc/kcore", "/sys/firmware"),
            readonly_paths=("/proc/sys",),
            seccomp=RUNTIME_DEFAULT,
        ),
    )
    return build(
        bundles.inputs(
            container=asked,
            host=bundles.host(cgroup=bundles.V2),
            user=ResolvedUser(uid=1000, gid=1000, groups=(1000, 2000), home="/home/web", name="web"),
            cgroup=place(parent, bundles.CONTAINER_ID, systemd=True),
            mounts=tuple(
                ResolvedMount(request=one, source=SourceFacts(path=one.host_path, is_directory=True))
                for one in asked.mounts
            ),
            defaults=BundleDefaults(pids_limit=4096),
        )
    )


def privileged() -> Built:
    """A node agent: privileged, all of the host's namespaces, shared mounts, a device more, on version 2."""
    options = NamespaceOptions(network=NamespaceMode.NODE, pid=NamespaceMode.NODE, ipc=NamespaceMode.NODE)
    mount = MountRequest(
        container_path="/host", host_path="/", propagation=Propagation.BIDIRECTIONAL, options=("nodev",)
    )
    source = SourceFacts(path="/", is_directory=True, peering=Peering.SHARED, file_system="ext4")
    node = DeviceNode(path="/dev/inside", kind="c", major=10, minor=229, mode=0o666)
    return build(
        bundles.inputs(
            container=bundles.container(
                security=ContainerSecurity(namespaces=options, privileged=True, seccomp=RUNTIME_DEFAULT)
            ),
            pod=bundles.pod(security=PodSecurity(namespaces=options, privileged=True)),
            namespaces=NamespacePaths(),
            host=bundles.host(cgroup=bundles.V2),
            mounts=(ResolvedMount(request=mount, source=source),),
            devices=(ResolvedDevice(node=node, permissions="rw"),),
        )
    )


def weak_daemon() -> Built:
    """A request that a daemon without CAP_SYS_RESOURCE and CAP_MKNOD can serve only in part: with notes."""
    capabilities = bundles.host().capabilities - {"CAP_SYS_RESOURCE", "CAP_MKNOD"}
    asked = bundles.container(
        tty=True,
        security=ContainerSecurity(
            namespaces=bundles.OWN_PID, capabilities=Capabilities(add=("SYS_RESOURCE", "NET_ADMIN"))
        ),
        resources=Resources(oom_score_adj=-997),
    )
    return build(
        bundles.inputs(
            container=asked,
            host=bundles.host(
                capabilities=capabilities,
                bounding=capabilities,
                rlimits={"RLIMIT_NOFILE": 20000},
                lowest_oom_score_adj=0,
            ),
            defaults=BundleDefaults(rlimits={"RLIMIT_NOFILE": Rlimit(soft=1024, hard=524288)}),
        )
    )


def user_namespace() -> Built:
    """A pod in a user namespace, with an id-mapped volume and a shared PID namespace."""
    line = IdMapping(host_id=1048576, container_id=0, length=65536)
    options = NamespaceOptions(user=UserNamespace(uids=(line,), gids=(line,)), user_requested=True)
    mount = MountRequest(
        container_path="/data", host_path="/volumes/data", uid_mappings=(line,), gid_mappings=(line,)
    )
    return build(
        bundles.inputs(
            container=bundles.container(security=ContainerSecurity(namespaces=options)),
            pod=bundles.pod(security=PodSecurity(namespaces=options)),
            handler=HandlerTraits(name="runc", user_namespaces=True, idmapped_mounts=True),
            namespaces=NamespacePaths(network="/n", ipc="/i", uts="/u", user="/user", pid="/proc/42/ns/pid"),
            mounts=(
                ResolvedMount(request=mount, source=SourceFacts(path="/volumes/data", is_directory=True)),
            ),
        )
    )


def pod_init() -> Built:
    """The first process of a pod with a shared PID namespace."""
    return sandbox_init(
        SandboxInitInputs(
            pod_id=bundles.POD_ID,
            pod=bundles.pod(),
            host=bundles.host(),
            cgroup=place("/kubepods/pod1", bundles.POD_ID, systemd=False),
            namespaces=bundles.inputs().namespaces,
        )
    )


REQUESTS: Mapping[str, Callable[[], Built]] = {
    one.__name__: one for one in (plain, restricted, privileged, weak_daemon, user_namespace, pod_init)
}


def text(built: Built) -> str:
    """The file's content: the configuration and the notes, in a form that differs line by line."""
    shown: dict[str, Any] = {"config": built.config, "notes": list(built.notes)}
    return json.dumps(shown, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write() -> None:
    SPECS.mkdir(exist_ok=True)
    for name, make in REQUESTS.items():
        (SPECS / f"{name}.json").write_text(text(make()))


if __name__ == "__main__":
    write()
