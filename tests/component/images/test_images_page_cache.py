"""What a container has read of its image is in the page cache once, some time after its start."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from pathlib import Path

import pytest

from oci.workload import ContainerId
from shim.images import settling
from shim.images.store import ImageStore
from shim.kernel.probe import can_mount_erofs_from_file
from tests.component.images.rig import opened, run, shown
from tests.doubles.registry import Registry, tar_of

SIZE = 4 << 20
TIMES = (0.5, 1.0)  # seconds after a start


def cached(path: Path) -> int:
    """Bytes of the file that are in the page cache."""
    done = subprocess.run(
        ["fincore", "--bytes", "--noheadings", "--output", "RES", path],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout)


def test_the_lower_copy_is_dropped_and_the_upper_stays(
    double: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.push("app", "1", [tar_of({"big": random.Random(1).randbytes(SIZE)})])
    home.mkdir()
    if not can_mount_erofs_from_file(home):
        pytest.skip("this kernel does not mount EROFS from a file")
    monkeypatch.setattr(settling.Settling.__init__, "__defaults__", (TIMES,))

    async def story() -> None:
        async with opened(home, form="erofs") as store:
            await look(store, double.reference("app:1"))

    async def look(store: ImageStore, reference: str) -> None:
        record = await store.pull(reference)
        (tar,) = (home / "images/layers").glob("*.tar")
        for name in ("first", "second"):  # the second start has its times too
            rootfs = await store.acquire_rootfs(ContainerId(name), record.id, home)
            with shown(rootfs, home) as root:
                assert len((root / "big").read_bytes()) == SIZE
                assert name == "second" or cached(tar) >= SIZE
                while cached(tar) > 0:
                    await asyncio.sleep(0.05)
                assert cached(root / "big") >= SIZE * 9 // 10  # the kernel may take some of its own will
        for name in ("first", "second"):
            await store.release_rootfs(ContainerId(name))
        # One that has ended by then leaves the tar's copy, the only one, to the next.
        while True:
            began = time.monotonic()
            rootfs = await store.acquire_rootfs(ContainerId("short"), record.id, home)
            with shown(rootfs, home) as root:
                assert len((root / "big").read_bytes()) == SIZE
            await store.release_rootfs(ContainerId("short"))
            if time.monotonic() - began < TIMES[0]:  # on a busy machine it may not have been short
                break
        await asyncio.sleep(TIMES[1] + 0.5)  # both times are over
        assert cached(tar) >= SIZE * 9 // 10

    run(story)
