"""Anonymous storage for an image's VOLUMEs: a directory each in the container's own, gone with it.

It begins as a copy of what the image has at that path. The path comes from whoever made the image: it is
opened as a process inside the root file system would, so that no link leads out of it (CVE-2022-23648).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from oci.errors import BadInput, Internal
from shim import process
from shim.kernel.openat2 import open_in_root
from shim.threads import taken_in_thread

_COPY_TIME = 600.0  # seconds for one volume
DIRECTORY = "volumes"


async def prepare(
    volumes: Sequence[str],
    covered: Sequence[str],
    *,
    rootfs: Path,
    directory: Path,
    root: tuple[int, int] = (0, 0),
) -> tuple[tuple[str, str], ...]:
    """Make the storage of each volume; returns (path in the container, directory on the host).

    `root` is the container's root user and group as the host numbers them: what `rootfs` shows has its
    owners shifted already, and what is not in the image is root's.

    Paths in `covered` have a mount of the request and get none; so do those where the image has a file.
    Raises BadInput for a path that leads nowhere, Internal (disk).
    """
    taken = {posixpath.normpath(path) for path in covered}
    wanted = sorted({posixpath.normpath(f"/{path}") for path in volumes} - taken - {"/"})
    made = []
    for n, path in enumerate(wanted):
        target = directory / DIRECTORY / str(n)
        if await _fill(path, rootfs, target, root):
            made.append((path, os.fspath(target)))
    return tuple(made)


async def _fill(path: str, rootfs: Path, target: Path, root: tuple[int, int]) -> bool:
    """Whether there is storage now: not where the image has something else than a directory."""
    kept, source = await taken_in_thread(lambda: _open(path, rootfs, target, root), _let_go)
    if source is not None:
        try:
            # Everything is kept: owners, modes, times, links, attributes, holes; devices stay devices.
            argv = ["cp", "--archive", "--reflink=auto", "--", f"/proc/self/fd/{source}/.", f"{target}/"]
            await process.run(argv, timeout=_COPY_TIME, pass_fds=(source,))
        finally:
            os.close(source)
    return kept


def _open(path: str, rootfs: Path, target: Path, root: tuple[int, int]) -> tuple[bool, int | None]:
    """Whether there can be storage at `path`, then made at `target`; and what to copy, if anything."""
    try:
        source = open_in_root(rootfs, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
    except FileNotFoundError:
        _make(target, root, 0o755)
        return True, None
    except NotADirectoryError:
        return False, None
    except OSError as error:
        raise BadInput(f"image volume {path!r}: {os.strerror(error.errno or 0)}") from error
    try:
        seen = os.fstat(source)
        _make(target, (seen.st_uid, seen.st_gid), seen.st_mode & 0o7777)
        if os.listdir(source):  # noqa: PTH208 - a descriptor
            return True, source
    except BaseException:
        os.close(source)
        raise
    os.close(source)
    return True, None


def _let_go(opened: tuple[bool, int | None]) -> None:
    if opened[1] is not None:
        os.close(opened[1])


def _make(target: Path, owner: tuple[int, int], mode: int) -> None:
    try:
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chown(target, *owner)
        target.chmod(mode)
    except OSError as error:
        raise Internal(f"image volume {target}: {error.strerror}") from error
