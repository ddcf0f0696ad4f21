"""Everything on the machine that decides one container's configuration, looked at in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oci.bundle.inputs import ResolvedDevice, ResolvedMount
from oci.bundle.process import working_dir
from oci.facts import ResolvedUser
from oci.workload import ContainerSpec, ProfileKind
from shim.facts.rootfs import check_mount_targets, check_working_dir, resolve_user
from shim.facts.sources import read_seccomp_profile, resolve_devices, resolve_mounts
from shim.records import ImageRecord
from shim.threads import in_thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What was seen; `localhost_seccomp` only where the request names such a profile."""

    user: ResolvedUser
    working_dir: str
    mounts: tuple[ResolvedMount, ...]
    devices: tuple[ResolvedDevice, ...]
    localhost_seccomp: Mapping[str, Any] | None


async def look(spec: ContainerSpec, image: ImageRecord, rootfs: Path, provided: Mapping[int, str]) -> Looks:
    """Look for one container whose root file system is mounted at `rootfs`. Raises BadInput.

    `provided` has the directories of mounts, by their place in the request, that show an image.
    """
    return await in_thread(_look, spec, image, rootfs, provided)


def _look(spec: ContainerSpec, image: ImageRecord, rootfs: Path, provided: Mapping[int, str]) -> Looks:
    mounts = resolve_mounts(spec.mounts, provided)
    check_mount_targets(rootfs, [mount.request.container_path for mount in mounts])
    seccomp = spec.security.seccomp
    named = seccomp is not None and seccomp.kind is ProfileKind.LOCALHOST and not spec.security.privileged
    return Looks(
        user=resolve_user(rootfs, spec.security.user, image.config.user),
        working_dir=check_working_dir(rootfs, working_dir(spec, image.config)),
        mounts=mounts,
        devices=resolve_devices(spec.devices),
        localhost_seccomp=read_seccomp_profile(seccomp.ref) if named and seccomp is not None else None,
    )
