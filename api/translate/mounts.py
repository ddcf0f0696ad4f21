"""Mount in both directions: kubelet finds its files again by what the status says of them."""

from __future__ import annotations

from api.proto import cri_pb2
from api.translate import checks, security
from api.translate.images import image_spec, image_spec_to_wire
from oci.errors import BadInput
from oci.workload import IdMapping, ImageSpec, MountRequest, Propagation

PROPAGATIONS = {
    cri_pb2.PROPAGATION_PRIVATE: Propagation.PRIVATE,
    cri_pb2.PROPAGATION_HOST_TO_CONTAINER: Propagation.HOST_TO_CONTAINER,
    cri_pb2.PROPAGATION_BIDIRECTIONAL: Propagation.BIDIRECTIONAL,
}
_TO_WIRE = {value: number for number, value in PROPAGATIONS.items()}
_OPTIONS = ("noexec", "nodev", "nosuid")


def from_wire(message: cri_pb2.Mount, path: str) -> MountRequest:
    """Errors of a mount that shows an image begin with the token that kubelet looks for."""
    propagation = checks.choice(message.propagation, PROPAGATIONS, f"{path}.propagation")
    if message.recursive_read_only:
        if not message.readonly:
            raise BadInput(f"{path}.recursive_read_only: set without readonly")
        if propagation is not Propagation.PRIVATE:
            raise BadInput(f"{path}.recursive_read_only: needs private propagation")
    for index, option in enumerate(message.mount_options):
        if option not in _OPTIONS:
            raise BadInput(f"{path}.mount_options[{index}]: {option[:80]!r} is none of {', '.join(_OPTIONS)}")
    if message.HasField("image"):
        image = _image(message, path)
    else:
        image = None
        checks.absolute(message.host_path, f"{path}.host_path")
        if message.image_sub_path:
            raise BadInput(f"{path}.image_sub_path: set, but no image")
    return MountRequest(
        container_path=checks.absolute(message.container_path, f"{path}.container_path"),
        host_path=message.host_path,
        readonly=message.readonly,
        recursive_read_only=message.recursive_read_only,
        selinux_relabel=message.selinux_relabel,
        propagation=propagation,
        uid_mappings=security.id_mappings(message.uidMappings, f"{path}.uidMappings"),
        gid_mappings=security.id_mappings(message.gidMappings, f"{path}.gidMappings"),
        image=image,
        image_sub_path=message.image_sub_path,
        options=tuple(message.mount_options),
    )


def _image(message: cri_pb2.Mount, path: str) -> ImageSpec:
    try:
        if message.host_path:
            raise BadInput(f"{path}.host_path: set together with image")
        if not message.readonly:
            raise BadInput(f"{path}.readonly: an image can only be mounted read-only")
        if message.image_sub_path:
            checks.relative(message.image_sub_path, f"{path}.image_sub_path")
        return image_spec(message.image, f"{path}.image")
    except BadInput as error:
        raise BadInput(error.message, token="ImageVolumeMountFailed") from None  # noqa: S106 - a word


def to_wire(mount: MountRequest, image_ref: str) -> cri_pb2.Mount:
    """`image_ref` is the id of the image that is mounted, "" for other mounts."""
    return cri_pb2.Mount(
        container_path=mount.container_path,
        host_path=mount.host_path,
        readonly=mount.readonly,
        recursive_read_only=mount.recursive_read_only,
        selinux_relabel=mount.selinux_relabel,
        propagation=_TO_WIRE[mount.propagation],
        uidMappings=_mappings(mount.uid_mappings),
        gidMappings=_mappings(mount.gid_mappings),
        image=image_spec_to_wire(mount.image, image_ref=image_ref) if mount.image else None,
        image_sub_path=mount.image_sub_path,
        mount_options=mount.options,
    )


def _mappings(mappings: tuple[IdMapping, ...]) -> list[cri_pb2.IDMapping]:
    return [
        cri_pb2.IDMapping(host_id=entry.host_id, container_id=entry.container_id, length=entry.length)
        for entry in mappings
    ]
