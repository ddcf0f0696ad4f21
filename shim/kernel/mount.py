"""Mounting and unmounting: mount(2), umount2(2), bind, propagation and idmapped mounts.

Every function blocks; callers on the event loop judge by what may lie below (a local bind takes 20 µs, a
dead network file system for ever). Errors are OSError with the target; the stage is the caller's to name.
"""

from __future__ import annotations

import ctypes
import errno
import os
from enum import IntFlag
from pathlib import Path

from shim.kernel import libc


class Flag(IntFlag):
    """MS_* of linux/mount.h."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    NOSYMFOLLOW = 256
    BIND = 4096
    MOVE = 8192
    REC = 16384
    SILENT = 32768
    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20
    RELATIME = 1 << 21


class Attribute(IntFlag):
    """MOUNT_ATTR_* of linux/mount.h."""

    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    IDMAP = 0x100000


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_NO_FLAGS = Flag(0)
_NO_ATTRIBUTES = Attribute(0)
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_PAGE = 4096


def mount(
    source: str | Path, target: str | Path, fstype: str = "", flags: Flag = _NO_FLAGS, data: str = ""
) -> None:
    """mount(2). Raises OSError; E2BIG when `data` is longer than the one page that the kernel takes."""
    options = os.fsencode(data)
    if len(options) >= _PAGE:
        raise libc.failure(errno.E2BIG, "mount options over one page", os.fspath(target))
    libc.call(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode("ascii") or None,
        int(flags),
        options or None,
        path=os.fspath(target),
    )


def bind(
    source: str | Path, target: str | Path, *, recursive: bool = False, attributes: Attribute = _NO_ATTRIBUTES
) -> None:
    """Show `source` at `target` too. `attributes` (read-only and so on) apply to every mount that is shown.

    With attributes it goes through open_tree(2) and mount_setattr(2) (Linux 5.12), so there is no moment at
    which the mount is visible without them. Raises OSError.
    """
    if attributes:
        tree = clone_tree(source, recursive=recursive)
        try:
            set_attributes(tree, attributes, recursive=recursive)
            attach_tree(tree, target)
        finally:
            os.close(tree)
        return
    mount(source, target, flags=Flag.BIND | (Flag.REC if recursive else _NO_FLAGS))


def mount_tmpfs(target: str | Path, *, size: int, mode: int) -> None:
    """A tmpfs of at most `size` bytes for data alone: nosuid, nodev, noexec. Raises OSError."""
    flags = Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
    mount("tmpfs", target, "tmpfs", flags, f"size={size},mode={mode:o}")


def set_propagation(target: str | Path, kind: Flag, *, recursive: bool = False) -> None:
    """Make a mount shared, slave, private or unbindable (mount_namespaces(7)). Raises OSError."""
    if kind not in (Flag.SHARED, Flag.SLAVE, Flag.PRIVATE, Flag.UNBINDABLE):
        raise ValueError(f"not a propagation: {kind!r}")
    mount("none", target, flags=kind | (Flag.REC if recursive else _NO_FLAGS))


def unmount(target: str | Path) -> bool:
    """Detach what is mounted at `target`, with all below it; False when nothing is mounted there.

    Detaching succeeds for busy mounts too; the file system goes when its last user does. Links at the end of
    the path are not followed. Raises OSError for other failures than EINVAL and ENOENT.
    """
    try:
        libc.call("umount2", os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW, path=os.fspath(target))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return True


def unmount_all(target: str | Path, *, limit: int = 64) -> int:
    """Detach mount after mount at `target` until none is left; how many there were."""
    for count in range(limit):
        if not unmount(target):
            return count
    raise libc.failure(errno.EBUSY, f"more than {limit} mounts on one another", os.fspath(target))


def clone_tree(source: str | Path, *, recursive: bool = False) -> int:
    """A detached copy of the mount at `source` as a descriptor (open_tree(2), Linux 5.2). Raises OSError."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (libc.AT_RECURSIVE if recursive else 0)
    path = os.fsencode(source)
    return libc.syscall(libc.SYS_OPEN_TREE, "open_tree", libc.AT_FDCWD, path, flags, path=os.fspath(source))


def set_attributes(
    tree: int, attributes: Attribute, *, recursive: bool = False, user_namespace: int | None = None
) -> None:
    """mount_setattr(2) on a detached tree (Linux 5.12). Raises OSError."""
    record = _MountAttr(attr_set=int(attributes), userns_fd=user_namespace or 0)
    flags = libc.AT_EMPTY_PATH | (libc.AT_RECURSIVE if recursive else 0)
    libc.syscall(libc.SYS_MOUNT_SETATTR, "mount_setattr", tree, b"", flags, record, ctypes.sizeof(record))


def attach_tree(tree: int, target: str | Path) -> None:
    """Put a detached mount at `target` (move_mount(2), Linux 5.2). Raises OSError."""
    libc.syscall(
        libc.SYS_MOVE_MOUNT,
        "move_mount",
        tree,
        b"",
        libc.AT_FDCWD,
        os.fsencode(target),
        _MOVE_MOUNT_F_EMPTY_PATH,
        path=os.fspath(target),
    )


def bind_idmapped(
    source: str | Path,
    target: str | Path,
    user_namespace: str | Path,
    *,
    recursive: bool = False,
    attributes: Attribute = _NO_ATTRIBUTES,
) -> None:
    """Show `source` at `target` with owners shifted by the maps of the user namespace at that path.

    Raises OSError: EINVAL where the file system cannot be idmapped, EPERM for the initial user namespace.
    """
    namespace = os.open(user_namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tree = clone_tree(source, recursive=recursive)
        try:
            set_attributes(tree, attributes | Attribute.IDMAP, recursive=recursive, user_namespace=namespace)
            attach_tree(tree, target)
        finally:
            os.close(tree)
    finally:
        os.close(namespace)
