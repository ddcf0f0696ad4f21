"""Everything on the machine that decides one container's configuration, looked at in one go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oci.bundle.inputs import ResolvedDevice, ResolvedMount
from oci.bundle.process import with_groups, working_dir
from oci.cdi import Edits, asked_names
from oci.facts import ResolvedUser
from oci.hooks import HookFile
from oci.selinux import SHARED, check_relabel, file_label
from oci.workload import ContainerSpec, ProfileKind
from shim.apparmor import check_loaded
from shim.cdi import resolve_nodes
from shim.facts.rootfs import check_mount_targets, check_working_dir, resolve_user
from shim.facts.sources import (
    check_default_mounts,
    read_seccomp_profile,
    resolve_devices,
    resolve_mounts,
)
from shim.node import Node
from shim.records import ImageRecord
from shim.relabel import relabel
from shim.threads import in_thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What was seen; `localhost_seccomp` only where the request names such a profile."""

    user: ResolvedUser
    working_dir: str
    mounts: tuple[ResolvedMount, ...]
    devices: tuple[ResolvedDevice, ...]
    localhost_seccomp: Mapping[str, Any] | None
    hooks: tuple[HookFile, ...]
    edits: Edits
    edit_devices: tuple[ResolvedDevice, ...]


async def look(
    node: Node, spec: ContainerSpec, image: ImageRecord, rootfs: Path, provided: Mapping[int, str]
) -> Looks:
    """Look for one container whose root file system is mounted at `rootfs`. Raises BadInput, Unsupported.

    `provided` has the directories of mounts, by their place in the request, that show an image.
    """
    return await in_thread(_look, node, spec, image, rootfs, provided)


def _look(
    node: Node, spec: ContainerSpec, image: ImageRecord, rootfs: Path, provided: Mapping[int, str]
) -> Looks:
    if not spec.security.privileged:
        check_loaded(node.host, spec.security.apparmor)
    edits = node.cdi.edits(asked_names(spec.cdi_devices, spec.annotations))
    mounts = resolve_mounts(spec.mounts, provided)
    if node.host.selinux:
        _relabel(mounts)
    targets = [mount.request.container_path for mount in mounts]
    targets += [mount.target for mount in node.defaults.mounts]
    check_default_mounts(node.defaults.mounts)
    check_mount_targets(rootfs, [*targets, *(mount.containerPath for mount in edits.mounts)])
    user = with_groups(resolve_user(rootfs, spec.security.user, image.config.user), edits.groups)
    seccomp = spec.security.seccomp
    named = seccomp is not None and seccomp.kind is ProfileKind.LOCALHOST and not spec.security.privileged
    return Looks(
        user=user,
        working_dir=check_working_dir(rootfs, working_dir(spec, image.config)),
        mounts=mounts,
        devices=resolve_devices(spec.devices),
        localhost_seccomp=read_seccomp_profile(seccomp.ref) if named and seccomp is not None else None,
        hooks=node.hooks.files(),
        edits=edits,
        edit_devices=resolve_nodes(edits, user),
    )


def _relabel(mounts: Iterable[ResolvedMount]) -> None:
    """Let every pod use the sources that the request wants relabelled."""
    for n, mount in enumerate(mounts):
        if mount.request.selinux_relabel and mount.request.image is None:
            field = f"config.mounts[{n}].selinux_relabel"
            check_relabel(field, mount.source.path)
            relabel(field, mount.source.path, file_label(SHARED))
