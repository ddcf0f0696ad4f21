"""What carries Crisp's marks and belongs to no record: found at a start, ended and removed.

It is what the loss of a record leaves, as when its row and its copy are damaged both. Nothing else knows of
it: a network attachment that is held, a process that nobody could stop. Decides nothing about recorded
objects.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable
from pathlib import Path

from oci import ids
from oci.cni import NetworkRequest
from oci.errors import CrispError, Internal
from oci.workload import ContainerId, PodId, PodMetadata
from shim import shown
from shim.files import remove_tree
from shim.kernel import mount
from shim.node import Node
from shim.records import PinnedNamespaces
from shim.runtimes.driver import Target
from shim.threads import in_thread

log = logging.getLogger(__name__)


async def remove_strays(node: Node) -> None:
    """End and remove what belongs to no record; a failure with one thing is logged, the rest goes on."""
    for directory in await asyncio.to_thread(
        _unknown, node.paths.containers, frozenset(node.store.containers)
    ):
        await _try("container", directory.name, _container(node, directory, PodId("")))
    pinned = await asyncio.to_thread(node.namespaces.sweep)
    lost = {PodId(name): pins for name, pins in pinned.items() if name not in node.store.pods}
    for directory in await asyncio.to_thread(_unknown, node.paths.pods, frozenset(node.store.pods)):
        lost.setdefault(PodId(directory.name), PinnedNamespaces())
    for pod_id, pins in lost.items():
        await _try("pod", pod_id, _pod(node, pod_id, pins))


async def _try(what: str, id_: str, work: Awaitable[None]) -> None:
    log.warning("what belongs to no record is removed", extra={what: id_})
    try:
        await work
    except (CrispError, OSError) as error:
        log.error("what belongs to no record stays", extra={what: id_, "error": str(error)})


async def _pod(node: Node, pod_id: PodId, pins: PinnedNamespaces) -> None:
    directory = node.paths.pod(pod_id)
    if ids.is_full(pod_id):
        init = directory / "init"
        if init.is_dir():
            await _container(node, init, pod_id)
        # The attachment's own file says all that a DEL needs.
        metadata = PodMetadata(name="", namespace="", uid="")
        await node.network.detach(NetworkRequest(pod_id=pod_id, metadata=metadata, netns=pins.network))
    await node.namespaces.unpin(pins)
    await in_thread(_discard, directory)


async def _container(node: Node, directory: Path, pod_id: PodId) -> None:
    id_ = ContainerId(pod_id or directory.name)
    if ids.is_full(id_):
        of = Target(
            id=id_,
            pod_id=pod_id,
            directory=directory,
            log_path=None,
            tty=False,
            stdin=False,
            stdin_once=False,
            cgroup=await asyncio.to_thread(_cgroup, directory),
        )
        # Which handler it was is lost; the others have never heard of it.
        for driver in node.handlers.drivers():
            await driver.delete(of)
    await in_thread(shown.hide, node.paths, id_)
    await in_thread(_discard, directory)


def _unknown(parent: Path, known: frozenset[str]) -> list[Path]:
    return [path for path in parent.iterdir() if path.name not in known]


def _cgroup(bundle: Path) -> str:
    """The cgroup that the bundle names, "" for one of systemd's: its scope ends with the last process."""
    try:
        path = json.loads((bundle / "config.json").read_bytes())["linux"]["cgroupsPath"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return path if isinstance(path, str) and path.startswith("/") else ""


def _discard(directory: Path) -> None:
    try:
        for name in ("rootfs", "shm", "init/rootfs"):
            mount.unmount_all(directory / name)
        remove_tree(directory)
    except OSError as error:
        raise Internal(f"removing {error.filename or directory}: {error.strerror}") from error
