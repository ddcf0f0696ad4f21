"""The two directories of a daemon: made, guarded by a lock, and mounted so that nothing leaks out of them."""

from __future__ import annotations

import errno
from pathlib import Path

from oci.errors import BadInput, Internal
from shim import shown
from shim.files import WRITABLE_AGAIN, make_private_directory
from shim.kernel import mount, mountinfo
from shim.kernel.flock import Lock, acquire
from shim.paths import Paths

_BOUND = "image-directory-is-bound"


def prepare(paths: Paths) -> Lock:
    """Make the directories, take the lock, make the state directory a private mount. Blocking.

    Private, so that the root file systems mounted below it do not spread into every mount namespace of the
    node and keep it busy. Raises Busy with the pid of a daemon that holds the state already.
    """
    try:
        make_private_directory(paths.state_dir)
        make_private_directory(paths.run_dir)
        lock = acquire(paths.state_dir / "lock", what=f"state directory {paths.state_dir}")
        if paths.image_dir is not None:
            lock.hold_also(_prepare_images(paths.image_dir, paths.run_dir / _BOUND))
        for directory in (paths.pods, paths.containers, paths.images, paths.logs):
            make_private_directory(directory)
        # Path.is_mount compares devices, and a directory bound onto itself stays on its own: a second mount
        # after a restart would hide all that is mounted below the first.
        _make_private_mount(paths.state_dir)
        shown.prepare(paths.shown)
    except OSError as error:
        cure = WRITABLE_AGAIN if error.errno == errno.EROFS else "crispd runs as root with CAP_SYS_ADMIN"
        raise Internal(
            f"cannot prepare {error.filename or paths.state_dir}: {error.strerror} (errno {error.errno});"
            f" {cure}"
        ) from error
    return lock


def _prepare_images(directory: Path, marker: Path) -> Lock:
    """A directory for images outside the state directory: a disk that is not mounted must not be replaced by

    an empty directory, so it is not made. Raises BadInput, Busy.
    """
    if not directory.is_dir():
        raise BadInput(f"images.directory: {directory} does not exist: make it, or mount the disk it is on")
    lock = acquire(directory / "lock", what=f"image directory {directory}")
    if _make_private_mount(directory):
        marker.touch()  # a disk that the operator has mounted there is not ours to unmount
    return lock


def _make_private_mount(directory: Path) -> bool:
    """Whether it has become a mount by this."""
    fresh = not mountinfo.is_mount_point(directory.resolve())
    if fresh:
        mount.bind(directory, directory)
    mount.set_propagation(directory, mount.Flag.PRIVATE)
    return fresh


def retire(paths: Paths) -> None:
    """Undo the mount for a daemon that keeps no pod; while something is mounted below, it stays. Blocking."""
    if not any(_entries(paths.pods)) and not any(_entries(paths.containers)):
        mount.unmount(paths.state_dir)
        marker = paths.run_dir / _BOUND
        if paths.image_dir is not None and marker.exists():
            mount.unmount(paths.image_dir)
            marker.unlink()
    shown.retire(paths)


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []
