"""Layers shown with the owners of a user namespace: whole or not at all, and promised only where it works."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from oci.errors import Internal
from oci.workload import IdMapping, UserNamespace
from shim.images import shifting
from shim.kernel import layered, mount
from shim.kernel.mountinfo import mounts_below
from shim.namespaces import userns
from shim.rootfs import Rootfs, RootfsMount
from shim.runtimes import overlay

ONE = (IdMapping(host_id=70000, container_id=0, length=10),)
USER = UserNamespace(uids=ONE, gids=ONE)


def shifted(directory: Path, *layers: str, namespace: str) -> Rootfs:
    for layer in layers:
        (directory / layer).mkdir(exist_ok=True)
    one = RootfsMount(
        type="overlay",
        lower=tuple(str(directory / layer) for layer in layers),
        upper=str(directory / "upper"),
        work=str(directory / "work"),
        user_namespace=namespace,
    )
    return Rootfs(mounts=(one,))


def test_only_the_overlay_is_mounted_in_the_end_with_the_shifted_owners(tmp_path: Path) -> None:
    async def go() -> None:
        async with userns.held(USER, ()) as helper:
            rootfs = shifted(tmp_path, "high", "low", namespace=f"/proc/{helper}/ns/user")
            (tmp_path / "low/file").touch()
            overlay.mount_rootfs(tmp_path / "rootfs", rootfs)
        try:
            (found,) = mounts_below(tmp_path)
            assert (found.type, found.target) == ("overlay", str(tmp_path / "rootfs"))
            assert (tmp_path / "rootfs/file").stat().st_uid == 70000
            (tmp_path / "rootfs/file").chmod(0o600)  # copied up, it keeps its owner
            assert (tmp_path / "upper/file").stat().st_uid == 70000
        finally:
            overlay.unmount_rootfs(tmp_path / "rootfs")

    asyncio.run(go())
    assert mounts_below(tmp_path) == ()


def test_a_failure_at_any_layer_leaves_nothing_mounted(tmp_path: Path) -> None:
    async def go() -> None:
        async with userns.held(USER, ()) as helper:
            rootfs = shifted(tmp_path, "high", "low", namespace=f"/proc/{helper}/ns/user")
            (tmp_path / "low").rmdir()
            with pytest.raises(Internal, match="low: open_tree: No such file"):
                overlay.mount_rootfs(tmp_path / "rootfs", rootfs)

    asyncio.run(go())
    assert mounts_below(tmp_path) == ()


def test_a_store_that_cannot_be_shifted_says_why_and_one_that_can_says_nothing(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "store", "plain"):
        (tmp_path / name).mkdir()
    assert asyncio.run(shifting.why_not(tmp_path / "plain")) == ""
    layered.mount_overlay(
        tmp_path / "store",
        [str(tmp_path / "lower")],
        upper=str(tmp_path / "upper"),
        work=str(tmp_path / "work"),
    )
    try:  # overlayfs is a file system that cannot be idmapped
        why = asyncio.run(shifting.why_not(tmp_path / "store"))
        left = os.listdir(tmp_path / "store")  # noqa: PTH208 - names only
    finally:
        mount.unmount(tmp_path / "store")
    assert why.startswith("the kernel or the file system of")
    assert "Invalid argument" in why
    assert left == []
