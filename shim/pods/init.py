"""A pod's first process, where one is needed: for a shared PID namespace or a sandboxing runtime.

It is catatonit on a root file system of our own that holds nothing else, run by the pod's runtime like any
container; no image is pulled for it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from oci.bundle import sandbox_init
from oci.bundle.inputs import NamespacePaths, SandboxInitInputs
from oci.errors import Internal
from oci.selinux import file_label
from oci.workload import ContainerId, NamespaceMode, PodSpec
from shim import shown
from shim.files import make_private_directory, writing
from shim.node import Node
from shim.placement import placed
from shim.pods import files
from shim.pods.lookup import owners
from shim.records import PodRecord, ProcessRef
from shim.relabel import relabel
from shim.runtimes.driver import Driver, Target
from shim.threads import in_thread

_PROGRAM = "catatonit"


def needed(driver: Driver, spec: PodSpec) -> bool:
    """Whether this pod gets a first process."""
    return driver.needs_init or spec.security.namespaces.pid is NamespaceMode.POD


def target(node: Node, record: PodRecord) -> Target:
    """The first process as its driver finds it; it has the pod's id and a bundle in the pod's directory."""
    place = placed(node, record.spec.cgroup_parent, record.id)
    return Target(
        id=ContainerId(record.id),
        pod_id=record.id,
        directory=node.paths.pod(record.id) / "init",
        log_path=None,
        tty=False,
        stdin=False,
        stdin_once=False,
        cgroup=place.kernel_path,
        process=record.init,
        monitor=record.init_monitor,
    )


async def start(node: Node, driver: Driver, record: PodRecord) -> tuple[ProcessRef, ProcessRef | None]:
    """Create and start it; on failure `remove` undoes what was done."""
    of = target(node, record)
    owner = owners(record)
    root = owner.root if owner is not None else (0, 0)
    rootfs = await in_thread(_make_rootfs, of.directory, node.settings.containers.init_binary, root)
    if record.selinux_level:
        await in_thread(relabel, "first process", rootfs.resolve(), file_label(record.selinux_level))
    named = rootfs.name
    if owner is not None:
        named = str(await in_thread(shown.show, node.paths, record.id, rootfs, owner.root[1]))
    built = sandbox_init(
        SandboxInitInputs(
            pod_id=record.id,
            pod=record.spec,
            host=node.host,
            cgroup=placed(node, record.spec.cgroup_parent, record.id),
            handler=node.traits_of(record),
            namespaces=NamespacePaths(
                network=record.namespaces.network,
                ipc=record.namespaces.ipc,
                uts=record.namespaces.uts,
                user=record.namespaces.user,
            ),
            files=files.pod_files(record, node.paths.pod(record.id)),
            selinux_level=record.selinux_level,
            rootfs=named,
        )
    )
    created = await driver.create(of, built.config)
    await driver.start(of)
    return created.process, created.monitor


async def remove(node: Node, record: PodRecord) -> None:
    """Kill it and remove what the runtime holds of it; absent is success."""
    await node.driver_of(record).delete(target(node, record))
    if owners(record) is not None:
        await in_thread(shown.hide, node.paths, record.id)


def pid_namespace(record: PodRecord) -> str:
    """The path of the pod's PID namespace, "" without a first process."""
    return f"/proc/{record.init.pid}/ns/pid" if record.init is not None else ""


def _make_rootfs(directory: Path, configured: Path | None, root: tuple[int, int]) -> Path:
    """Everything belongs to the pod's root, whose runtime makes the places of mounts in it."""
    program = configured or shutil.which(_PROGRAM, path="/usr/bin:/usr/local/bin:/usr/libexec/podman:/bin")
    if program is None:
        raise Internal(
            f"first process: {_PROGRAM} is not on PATH, install Debian's package {_PROGRAM}"
            " or set containers.init_binary"
        )
    with writing("first process", directory):
        rootfs = make_private_directory(directory) / "rootfs"
        for name in ("", "dev", "proc", "sys"):
            (rootfs / name).mkdir(mode=0o755, exist_ok=True)
            os.chown(rootfs / name, *root)
        shutil.copyfile(program, rootfs / _PROGRAM)
        (rootfs / _PROGRAM).chmod(0o755)
        return rootfs
