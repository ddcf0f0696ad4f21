"""Carrying out a `Rootfs`: its mounts, one over the other, at the bundle's `rootfs`. Blocking.

Knows mounts, not images; whoever prepares the state directory makes it a private mount, so that nothing of
this shows elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from oci.errors import Internal
from shim.kernel import layered, mount
from shim.rootfs import Rootfs, RootfsMount

_FLAGS = {
    "ro": mount.Flag.RDONLY,
    "nosuid": mount.Flag.NOSUID,
    "nodev": mount.Flag.NODEV,
    "noexec": mount.Flag.NOEXEC,
}
_ATTRIBUTES = {
    "ro": mount.Attribute.RDONLY,
    "nosuid": mount.Attribute.NOSUID,
    "nodev": mount.Attribute.NODEV,
    "noexec": mount.Attribute.NOEXEC,
}


def mount_rootfs(target: Path, rootfs: Rootfs) -> Path:
    """Mount everything at `target`; what an interrupted attempt mounted there goes first.

    On failure nothing stays mounted. Raises Internal naming the mount, Unsupported for too many layers.
    """
    try:
        target.mkdir(mode=0o755, exist_ok=True)
        mount.unmount_all(target)
        for one in rootfs.mounts:
            _mount(target, one)
    except BaseException as error:
        with contextlib.suppress(OSError):
            mount.unmount_all(target)
        if isinstance(error, OSError):
            raise Internal(
                f"root file system {target}: {error.filename or 'mount'}: {error.strerror}"
            ) from error
        raise
    return target


def unmount_rootfs(target: Path) -> None:
    """Detach everything at `target`; nothing mounted, or no such directory, is success. Raises Internal."""
    try:
        mount.unmount_all(target)
    except OSError as error:
        raise Internal(f"root file system {target}: unmounting: {error.strerror}") from error


def _mount(target: Path, one: RootfsMount) -> None:
    if one.type == "overlay":
        for path in filter(None, (one.upper, one.work)):
            os.makedirs(path, mode=0o755, exist_ok=True)  # noqa: PTH103 - the value is text
        layered.mount_overlay(target, one.lower, upper=one.upper, work=one.work, options=one.options)
    elif one.type == "bind":
        attributes = mount.Attribute(0)
        for option in one.options:
            attributes |= _ATTRIBUTES.get(option, mount.Attribute(0))
        mount.bind(one.source, target, attributes=attributes)
    else:
        flags = mount.Flag(0)
        for option in one.options:
            flags |= _FLAGS.get(option, mount.Flag(0))
        data = ",".join(option for option in one.options if option not in _FLAGS)
        mount.mount(one.source or "none", target, one.type, flags, data)
