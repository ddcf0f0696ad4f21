"""A container that runs, for tests that end it."""

from __future__ import annotations

from oci.workload import ContainerId, ContainerMetadata, ContainerSpec, ImageId, ImageSpec, PodId
from shim.records import ContainerRecord, ContainerState, ProcessRef

ID = ContainerId("c" * 64)
RUNNING = ContainerRecord(
    id=ID,
    pod_id=PodId("p" * 64),
    realm="kubelet",
    spec=ContainerSpec(metadata=ContainerMetadata(name="main"), image=ImageSpec(image="busybox")),
    state=ContainerState.RUNNING,
    created_at=1,
    started_at=2,
    handler="runc",
    image_id=ImageId("sha256:" + "1" * 64),
    process=ProcessRef(pid=7, start_time=8),
)
