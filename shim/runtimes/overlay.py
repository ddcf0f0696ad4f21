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

_STAGE_SIZE = 1 << 20  # bytes; it holds empty directories, one a layer


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
        if one.user_namespace:
            _mount_shifted(target, one)
        else:
            layered.mount_overlay(target, one.lower, upper=one.upper, work=one.work, options=one.options)
    elif one.type == "bind":
        attributes = mount.Attribute(0)
        for option in one.options:
            attributes |= _ATTRIBUTES.get(option, mount.Attribute(0))
        if one.user_namespace:
            mount.bind_idmapped(one.source, target, one.user_namespace, attributes=attributes)
        else:
            mount.bind(one.source, target, attributes=attributes)
    else:
        flags = mount.Flag(0)
        for option in one.options:
            flags |= _FLAGS.get(option, mount.Flag(0))
        data = ",".join(option for option in one.options if option not in _FLAGS)
        mount.mount(one.source or "none", target, one.type, flags, data)


def _mount_shifted(target: Path, one: RootfsMount) -> None:
    """An overlay of idmapped copies of its layers (fs/overlayfs: idmapped layers, Linux 5.19).

    A layer must be a mount of this mount namespace when the overlay is made, and need not be one later: the
    overlay keeps a copy. So they are mounted in a tmpfs at the target itself, where whoever clears the target
    after a crash clears them too; the finished overlay is lifted out and takes the place of it all.
    """
    mount.mount_tmpfs(target, size=_STAGE_SIZE, mode=0o700)
    layers = []
    for n, layer in enumerate(one.lower):
        place = target / str(n)
        place.mkdir(mode=0o700)
        mount.bind_idmapped(layer, place, one.user_namespace)
        layers.append(os.fspath(place))
    layered.mount_overlay(target, layers, upper=one.upper, work=one.work, options=one.options)
    tree = mount.clone_tree(target)
    try:
        mount.unmount_all(target)
        mount.attach_tree(tree, target)
    finally:
        os.close(tree)
