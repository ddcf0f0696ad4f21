"""A store on a real state store and disk, for tests of `shim/images/`; and what lies in its directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from oci.errors import CrispError
from oci.workload import ContainerId
from shim.images.settings import RegistryPlaces, StoreSettings, Transfer
from shim.images.store import ImageStore
from shim.kernel import mount
from shim.kernel.layered import mount_overlay
from shim.kernel.mountinfo import mounts_below
from shim.rootfs import Rootfs
from shim.state.store import Store

FAST = Transfer(backoff=0.01, connect_timeout=5.0, read_timeout=5.0, longest_wait=2.0)


@contextlib.asynccontextmanager
async def opened(
    directory: Path,
    *,
    containers: tuple[str, ...] = (),
    registry_dirs: tuple[Path, ...] = (),
    on_commit: Callable[[int], None] | None = None,
    **settings: Any,
) -> AsyncIterator[ImageStore]:
    """The image store of a state directory, recovered; made where it is not there yet."""
    directory.mkdir(exist_ok=True)
    records = await Store.open(directory, on_commit=on_commit)
    places = RegistryPlaces(directories=registry_dirs)
    chosen = replace(StoreSettings(transfer=FAST, registries=places), **settings)
    store = ImageStore(directory / "images", records=records, settings=chosen)
    try:
        await store.recover([ContainerId(name) for name in containers])
        yield store
    finally:
        await store.close()
        await records.close()


def run(story: Callable[[], Awaitable[None]], *, limit: float = 100) -> None:
    """Play a story, in `limit` seconds at most."""
    asyncio.run(_bounded(story, limit))


async def _bounded(story: Callable[[], Awaitable[None]], limit: float) -> None:
    async with asyncio.timeout(limit):
        await story()


def content(directory: Path) -> list[str]:
    """Every file and layer directory of a store; an empty store has none.

    What is being removed in the background, or kept to be resumed, does not count: `everything` has it.
    """
    root = directory / "images"
    found = [
        name for name in _walked(root, directories=False) if not re.match(r"tmp/[\w-]+\.gone/|partial/", name)
    ]
    found += [str(path.relative_to(root)) for path in (root / "l").iterdir()]
    found += [f"mount {mounted.target}" for mounted in mounts_below(root)]
    return sorted(found)


def everything(directory: Path) -> list[str]:
    """Every file and directory of a store, except its own."""
    return [name for name in _walked(directory / "images", directories=True) if "/" in name]


def _walked(root: Path, *, directories: bool) -> list[str]:
    """Unlike rglob this takes it when a directory goes meanwhile."""
    return [
        os.path.relpath(os.path.join(base, name), root)  # noqa: PTH118 - text is compared
        for base, below, names in os.walk(root)
        for name in ([*names, *below] if directories else names)
    ]


async def failure(work: Awaitable[object]) -> CrispError:
    """The error that `work` must end with."""
    try:
        await work
    except CrispError as error:
        return error
    raise AssertionError("it succeeded")


@contextlib.contextmanager
def shown(rootfs: Rootfs, directory: Path) -> Iterator[Path]:
    """A root file system mounted below `directory` until the block ends."""
    (overlay,) = rootfs.mounts
    target = directory / "rootfs"
    target.mkdir()
    mount_overlay(target, overlay.lower, upper=overlay.upper, work=overlay.work, options=overlay.options)
    try:
        yield target
    finally:
        mount.unmount(target)
        target.rmdir()


def files(top: Path) -> dict[str, bytes]:
    """Regular files and symlinks below `top` with what they hold."""
    found = {}
    for base, _, names in os.walk(top):
        for name in names:
            path = Path(base, name)
            held = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
            found[str(path.relative_to(top))] = held
    return found
