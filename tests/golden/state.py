"""The state as release 0.1 writes it: `python -m tests.golden.state` made `tests/golden/state/0.1` from it.

Later releases must read that folder, so it is never written again; a release that writes something new adds a
folder of its own. A record here names every member that the release knows.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from oci.cni import NetworkResult
from oci.image import ImageConfig
from oci.workload import (
    Capabilities,
    ContainerId,
    ContainerMetadata,
    ContainerSecurity,
    ContainerSpec,
    DnsConfig,
    HugepageLimit,
    ImageId,
    ImageSpec,
    MountRequest,
    NamespaceMode,
    NamespaceOptions,
    PodId,
    PodMetadata,
    PodSecurity,
    PodSpec,
    PortMapping,
    ProfileKind,
    Propagation,
    Resources,
    SecurityProfile,
    UserChoice,
)
from shim.records import (
    ContainerRecord,
    ContainerState,
    ImageRecord,
    LayerRecord,
    PinnedNamespaces,
    PodRecord,
    PodState,
    ProcessRef,
)
from shim.state.store import Record, Store

FOLDER = Path(__file__).with_name("state") / "0.1"
_POD, _CONTAINER, _IMAGE, _LAYER = PodId("a" * 64), ContainerId("b" * 64), "c" * 64, "d" * 64

RECORDS: tuple[Record, ...] = (
    PodRecord(
        id=_POD,
        realm="kubelet",
        spec=PodSpec(
            metadata=PodMetadata(name="web", namespace="default", uid="1-2-3", attempt=1),
            hostname="web",
            log_directory="/var/log/pods/default_web_1-2-3",
            dns=DnsConfig(servers=("10.96.0.10",), searches=("svc.cluster.local",), options=("ndots:5",)),
            port_mappings=(PortMapping(protocol="tcp", container_port=80, host_port=8080),),
            labels={"app": "web"},
            annotations={"note": "first line\nsecond line"},
            cgroup_parent="/kubepods/burstable/pod1",
            sysctls={"net.core.somaxconn": "1024"},
            security=PodSecurity(
                namespaces=NamespaceOptions(pid=NamespaceMode.CONTAINER),
                seccomp=SecurityProfile(kind=ProfileKind.RUNTIME_DEFAULT),
            ),
            handler="runc",
        ),
        state=PodState.READY,
        created_at=1_700_000_000_000_000_001,
        handler="runc",
        boot_id="0c7a1c1e-0000-4000-8000-000000000000",
        namespaces=PinnedNamespaces(network="/run/netns/crisp-a", ipc="/run/crisp/ns/a/ipc"),
        network=NetworkResult(addresses=("10.84.0.2", "fd00::2"), networks=("crisp",)),
        network_owed=True,
        init=ProcessRef(pid=41, start_time=4242),
        init_monitor=ProcessRef(pid=40, start_time=4241),
    ),
    ContainerRecord(
        id=_CONTAINER,
        pod_id=_POD,
        realm="kubelet",
        spec=ContainerSpec(
            metadata=ContainerMetadata(name="main", attempt=2),
            image=ImageSpec(image=f"sha256:{_IMAGE}", user_specified_image="busybox"),
            command=("sh", "-c"),
            args=("echo ü",),
            envs=(("A", "1"), ("A", "2")),
            mounts=(
                MountRequest(
                    container_path="/data", host_path="/srv", propagation=Propagation.HOST_TO_CONTAINER
                ),
            ),
            log_path="main/2.log",
            resources=Resources(
                memory_limit=1 << 26, hugepage_limits=(HugepageLimit(page_size="2MB", limit=0),)
            ),
            security=ContainerSecurity(
                capabilities=Capabilities(add=("NET_ADMIN",), drop=("ALL",)),
                user=UserChoice(uid=1000, supplemental_groups=(5,), strict_groups=True),
                masked_paths=("/proc/kcore",),
            ),
        ),
        state=ContainerState.EXITED,
        created_at=1_700_000_000_000_000_002,
        handler="runc",
        image_id=ImageId(f"sha256:{_IMAGE}"),
        image_ref="docker.io/library/busybox@sha256:" + "e" * 64,
        log_path="/var/log/pods/default_web_1-2-3/main/2.log",
        cgroup="/kubepods/burstable/pod1/" + "b" * 64,
        stop_signal="SIGQUIT",
        uid=1000,
        gid=1000,
        supplemental_groups=(5, 1000),
        started_at=1_700_000_000_000_000_003,
        finished_at=1_700_000_000_000_000_004,
        exit_code=137,
        reason="OOMKilled",
    ),
    ImageRecord(
        id=ImageId(f"sha256:{_IMAGE}"),
        tags=("docker.io/library/busybox:latest",),
        digests=("docker.io/library/busybox@sha256:" + "e" * 64,),
        manifest_digest="sha256:" + "e" * 64,
        config=ImageConfig(architecture="amd64", user="www-data", env=("PATH=/bin",), cmd=("sh",)),
        layers=(f"sha256:{_LAYER}",),
        size=4_000_000,
        pinned=True,
        created_at=1_700_000_000_000_000_000,
    ),
    LayerRecord(
        diff_id=f"sha256:{_LAYER}", form="erofs", size=3_900_000, inodes=400, created_at=1_700_000_000
    ),
)


async def _write(folder: Path) -> None:
    store = await Store.open(folder)
    for record in RECORDS:
        await store.put(record)
    await store.close()


if __name__ == "__main__":
    if FOLDER.exists():
        sys.exit(f"{FOLDER} is what that release wrote; add a folder for a new release instead")
    FOLDER.mkdir(parents=True)
    asyncio.run(_write(FOLDER))
    for left in FOLDER.glob("state.db-*"):
        left.unlink()
