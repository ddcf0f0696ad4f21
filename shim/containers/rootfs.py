"""A container's root file system: layers lent, mounted by the driver, shown to the pod's user namespace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oci.bundle.security import files_level
from oci.selinux import file_label
from shim import shown
from shim.lifecycle.undo import Step
from shim.node import Node
from shim.pods.lookup import owners
from shim.records import ContainerRecord, PodRecord
from shim.rootfs import labelled
from shim.runtimes.driver import Driver
from shim.threads import in_thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Provided:
    """`path` is where the daemon looks at it, `named` what config.json calls it, relative to the bundle."""

    path: Path
    named: str


async def provide(node: Node, driver: Driver, pod: PodRecord, record: ContainerRecord) -> Provided:
    """Lend, mount and show it; repeatable. On failure call the steps of `taking_away`."""
    directory, owner = node.paths.container(record.id), owners(pod)
    rootfs = await node.images.acquire_rootfs(record.id, record.image_id, directory, owner)
    if node.host.selinux:
        level = files_level(record.spec.security, pod.spec.security, pod.selinux_level)
        rootfs = labelled(rootfs, file_label(level))
    path = await driver.mount_rootfs(directory, rootfs)
    if owner is None:
        return Provided(path=path, named=path.name)
    place = await in_thread(shown.show, node.paths, record.id, path, owner.root[1])
    return Provided(path=path, named=str(place))


def taking_away(node: Node, driver: Driver, record: ContainerRecord) -> list[tuple[str, float, Step]]:
    """The steps that undo `provide`, for `run_all`; absent is success."""
    directory = node.paths.container(record.id)

    async def hide() -> None:
        await in_thread(shown.hide, node.paths, record.id)

    pod = node.store.pods.get(record.pod_id)
    return [
        *([("shown root file system", 30.0, hide)] if pod is None or owners(pod) is not None else []),
        ("root file system", 30.0, lambda: driver.unmount_rootfs(directory)),
        ("layers", 30.0, lambda: node.images.release_rootfs(record.id)),
    ]
