"""ContainerRecord -> what CRI says of a container."""

from __future__ import annotations

from collections.abc import Callable

from api.proto import cri_pb2
from api.translate import mounts, resources, signals
from api.translate.images import image_spec_to_wire
from oci.workload import ContainerMetadata
from shim.records import ContainerRecord, ContainerState, ImageRecord

FindImage = Callable[[str], ImageRecord | None]

_STATES = {
    ContainerState.CREATING: cri_pb2.CONTAINER_CREATED,
    ContainerState.CREATED: cri_pb2.CONTAINER_CREATED,
    ContainerState.STARTING: cri_pb2.CONTAINER_CREATED,
    ContainerState.RUNNING: cri_pb2.CONTAINER_RUNNING,
    ContainerState.EXITED: cri_pb2.CONTAINER_EXITED,
    ContainerState.UNKNOWN: cri_pb2.CONTAINER_UNKNOWN,
}


def container_state(record: ContainerRecord) -> cri_pb2.ContainerState.ValueType:
    """While it is removed a container is shown as what it was: a state never goes backwards."""
    if record.state is not ContainerState.REMOVING:
        return _STATES[record.state]
    if record.finished_at:
        return cri_pb2.CONTAINER_EXITED
    return cri_pb2.CONTAINER_UNKNOWN if record.started_at else cri_pb2.CONTAINER_CREATED


def metadata(value: ContainerMetadata) -> cri_pb2.ContainerMetadata:
    return cri_pb2.ContainerMetadata(name=value.name, attempt=value.attempt)


def listed(record: ContainerRecord) -> cri_pb2.Container:
    return cri_pb2.Container(
        id=record.id,
        pod_sandbox_id=record.pod_id,
        metadata=metadata(record.spec.metadata),
        image=image_spec_to_wire(record.spec.image),
        image_ref=record.image_ref or record.image_id,
        state=container_state(record),
        created_at=record.created_at,
        labels=record.spec.labels,
        annotations=record.spec.annotations,
        image_id=record.image_id,
    )


def status(record: ContainerRecord, find_image: FindImage) -> cri_pb2.ContainerStatus:
    """`find_image` answers from memory: for a tag of the container's image."""
    image = find_image(record.image_id)
    return cri_pb2.ContainerStatus(
        id=record.id,
        metadata=metadata(record.spec.metadata),
        state=container_state(record),
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        exit_code=record.exit_code,
        image=image_spec_to_wire(record.spec.image, image=image.tags[0] if image and image.tags else ""),
        image_ref=record.image_ref or record.image_id,
        reason=record.reason,
        message=record.message,
        labels=record.spec.labels,
        annotations=record.spec.annotations,
        mounts=[
            mounts.to_wire(mount, record.image_mounts[n] if n < len(record.image_mounts) else "")
            for n, mount in enumerate(record.spec.mounts)
        ],
        log_path=record.log_path,
        resources=cri_pb2.ContainerResources(linux=resources.to_wire(record.limits)),
        image_id=record.image_id,
        user=cri_pb2.ContainerUser(
            linux=cri_pb2.LinuxContainerUser(
                uid=record.uid, gid=record.gid, supplemental_groups=record.supplemental_groups
            )
        ),
        stop_signal=signals.to_wire(record.stop_signal),
    )
