"""Image volumes: an image's files, read-only, mounted once a pod and shared by its containers.

Who uses which image stands in the containers' records; that layers are lent stands with the image store,
under a name made of the pod's and the image's. Containers bind the mount, or a directory below it.
"""

from __future__ import annotations

import os
from pathlib import Path

from oci.errors import Absent, BadInput, CrispError
from oci.workload import ContainerId, ContainerSpec, ImageId, MountRequest, PodId
from shim.kernel.openat2 import open_in_root
from shim.node import Node
from shim.pods.lookup import owners
from shim.records import PodRecord, PodState
from shim.rootfs import Rootfs
from shim.runtimes import overlay
from shim.threads import in_thread

TOKEN = "ImageVolumeMountFailed"  # noqa: S105 - a word that kubelet reads, no secret


async def wanted(node: Node, spec: ContainerSpec, namespace: str) -> tuple[ImageId, ...]:
    """The image of each mount, "" for mounts of another kind.

    Raises Absent for one that is not here, Untrusted for one that pods of the namespace must not have.
    """
    return tuple([await _image(node, n, request, namespace) for n, request in enumerate(spec.mounts)])


async def _image(node: Node, index: int, request: MountRequest, namespace: str) -> ImageId:
    if request.image is None:
        return ImageId("")
    found = node.images.find(request.image.image)
    if found is None:
        raise Absent(
            f"config.mounts[{index}].image.image: {request.image.image!r} is not in the image store,"
            " pull it first",
            token=TOKEN,
        )
    asked = request.image.user_specified_image or request.image.image
    await node.images.check(found, asked, namespace)
    return found.id


async def provide(
    node: Node, pod: PodRecord, spec: ContainerSpec, images: tuple[ImageId, ...]
) -> dict[int, str]:
    """Mount what is not mounted yet; the directory that each image mount of the request binds.

    Raises BadInput for a sub path that is no directory of the image.
    """
    sources = {}
    for n, image in enumerate(images):
        if image:
            try:
                root = await _mounted(node, pod, image)
            except CrispError as error:
                raise type(error)(f"config.mounts[{n}].image: {error.message}", token=TOKEN) from error
            sources[n] = await in_thread(_locate, root, spec.mounts[n].image_sub_path, n)
    return sources


async def _mounted(node: Node, pod: PodRecord, image: ImageId) -> Path:
    target = _place(node, pod.id, image)
    async with node.operations.exclusive(("image volumes", pod.id)):
        if not await in_thread(target.is_mount):
            rootfs = await node.images.acquire_volume(_holder(pod.id, image), image, owners(pod))
            await in_thread(_mount, target, rootfs)
    return target


def _mount(target: Path, rootfs: Rootfs) -> None:
    target.parent.mkdir(mode=0o700, exist_ok=True)
    overlay.mount_rootfs(target, rootfs)


def _locate(root: Path, sub_path: str, index: int) -> str:
    """The real path of a directory of the image; the image is read-only, so it stays what it is."""
    if not sub_path:
        return os.fspath(root)
    field = f"config.mounts[{index}].image_sub_path"
    try:
        descriptor = open_in_root(root, sub_path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise BadInput(
            f"{field}: {sub_path[:400]!r} is no directory of the image: {os.strerror(error.errno or 0)}",
            token=TOKEN,
        ) from error
    try:
        return os.fspath(Path(f"/proc/self/fd/{descriptor}").readlink())
    finally:
        os.close(descriptor)


async def drop_unused(node: Node, pod: PodId, *, but: ContainerId) -> None:
    """Unmount what no other container of the pod uses, or everything if the pod is no longer READY."""
    record = node.store.pods.get(pod)
    used: set[ImageId] = set()
    if record is not None and record.state is PodState.READY:
        others = (member for member in node.store.containers_of(pod) if member.id != but)
        used = {image for member in others for image in member.image_mounts}
    await _release(node, pod, used)


async def release(node: Node, pod: PodId) -> None:
    """Unmount all of a pod's image volumes and give their layers back; none is success."""
    await _release(node, pod, set())


async def _release(node: Node, pod: PodId, used: set[ImageId]) -> None:
    async with node.operations.exclusive(("image volumes", pod)):
        for holder, image in node.images.volumes_of(pod).items():
            if image not in used:
                await in_thread(_unmount, _place(node, pod, image))
                await node.images.release_rootfs(holder)


def _unmount(target: Path) -> None:
    overlay.unmount_rootfs(target)
    for path in (target, target.parent):
        try:
            path.rmdir()
        except OSError:
            return  # not there, or others beside it


def _place(node: Node, pod: PodId, image: ImageId) -> Path:
    return node.paths.pod(pod) / "images" / image.rpartition(":")[2]


def _holder(pod: PodId, image: ImageId) -> ContainerId:
    return ContainerId(f"{pod}.{image.rpartition(':')[2]}")
