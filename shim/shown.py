"""Root file systems shown a second time, where the root of a pod's user namespace may walk.

A runtime opens the root file system from inside the user namespace, with rights that end at the first
directory of the daemon's, which are all closed to others. So it is shown in a directory that anybody may
walk through and nobody read, below a directory that lets the group in that is the namespace's root.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from oci.errors import Internal
from shim.kernel import mount, mountinfo
from shim.paths import Paths


def prepare(directory: Path) -> None:
    """Make the directory a private mount, so that what is shown does not spread over the node. Blocking.

    Repeatable. Raises OSError.
    """
    directory.mkdir(mode=0o711, exist_ok=True)
    directory.chmod(0o711)
    if not mountinfo.is_mount_point(directory.resolve()):
        mount.bind(directory, directory)
    mount.set_propagation(directory, mount.Flag.PRIVATE)


def show(paths: Paths, id_: str, source: Path, group: int) -> Path:
    """Show what is mounted at `source`, or lies there, to members of `group`; repeatable. Blocking.

    Returns where. Raises Internal.
    """
    place = paths.shown / id_
    target = place / "rootfs"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        os.chown(place, 0, group)
        place.chmod(0o710)
        target.mkdir(mode=0o700, exist_ok=True)
        mount.unmount_all(target)
        mount.bind(source, target)
    except OSError as error:
        raise Internal(f"showing {source} at {target}: {error.strerror}") from error
    return target


def hide(paths: Paths, id_: str) -> None:
    """Undo `show`; absent is success. Blocking. Raises Internal."""
    place = paths.shown / id_
    try:
        mount.unmount_all(place / "rootfs")
        for path in (place / "rootfs", place):
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()
    except OSError as error:
        raise Internal(f"hiding {place}: {error.strerror}") from error


def all_shown(paths: Paths) -> list[str]:
    """The ids of everything that is shown. Blocking."""
    try:
        return os.listdir(paths.shown)  # noqa: PTH208 - names only
    except FileNotFoundError:
        return []


def retire(paths: Paths) -> None:
    """Undo `prepare`, unless something is still shown. Blocking."""
    if not paths.shown.exists() or all_shown(paths):
        return
    mount.unmount_all(paths.shown)
    with contextlib.suppress(OSError):
        paths.shown.rmdir()
