"""What came of a layer is not asked for again, after a cut or a kill, nor believed without its digest."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from oci.errors import Busy
from shim.images import layers, partial
from shim.records import LayerRecord
from tests.component.images.rig import FAST, content, everything, failure, opened, run
from tests.doubles.registry import Answer, Pushed, Registry, Request, cutting, failing, tar_of

BIG = tar_of({"big": random.Random(3).randbytes(3_000_000)})


def kept(home: Path) -> list[Path]:
    return sorted((home / "images/partial").iterdir())


def ranges(double: Registry, pushed: Pushed) -> list[str | None]:
    return [request.headers.get("range") for request in double.asked(f"blobs/{pushed.layers[0]}")]


async def cut_short(double: Registry, home: Path, pushed: Pushed, at: int, form: str = "erofs") -> None:
    """Pull while the registry cuts at that byte and then fails."""
    double.on(f"blobs/{pushed.layers[0]}", cutting(at), times=1)
    double.on(f"blobs/{pushed.layers[0]}", failing(500), times=20)
    async with opened(home, form=form) as store:
        assert isinstance(await failure(store.pull(double.reference("app:1"))), Busy)
        assert content(home) == []
        left = sum(path.stat().st_blocks * 512 for path in kept(home))
        assert (await store.filesystem_usage()).used_bytes == left
    double.rules.clear()
    double.requests.clear()


def test_a_download_goes_on_where_an_earlier_pull_and_an_earlier_daemon_ended(
    double: Registry, home: Path, form: str
) -> None:
    pushed = double.push("app", "1", [BIG])
    at = len(double.blobs[pushed.layers[0]]) * 9 // 10

    async def story() -> None:
        await cut_short(double, home, pushed, at, form)
        assert [path.stat().st_size for path in kept(home)] == [at]
        async with opened(home, form=form) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config
            assert ranges(double, pushed) == [f"bytes={at}-"]
            (layer,) = store.progress()[-1].layers
            assert (layer.received, layer.kept) == (layer.total, at)
            assert kept(home) == []
            await store.remove("app:1" if store.find("app:1") else pushed.config)
        assert content(home) == []
        assert kept(home) == []

    run(story)


KILLED = """
import asyncio, os, sys
from pathlib import Path
from tests.component.images.rig import opened
async def story():
    async with opened(Path(sys.argv[1])) as store:
        pull = asyncio.ensure_future(store.pull(sys.argv[2]))
        while sum(path.stat().st_size for path in (store.directory / "partial").iterdir()) < 1_000_000:
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), 9)
asyncio.run(story())
"""


def test_a_download_goes_on_where_a_killed_daemon_was(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [BIG])

    def halved(_request: Request, right: Answer) -> Answer:
        right.hold = double.closing  # its second half never comes
        return right

    double.on(f"blobs/{pushed.layers[0]}", halved, times=1)
    home.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(home), double.reference("app:1")],
        cwd=Path(__file__).parents[3],
        check=False,
        timeout=60,
    )
    assert ended.returncode == -9
    (left,) = kept(home)
    size = left.stat().st_size
    assert size >= 1_000_000

    async def story() -> None:
        async with opened(home) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config
            assert ranges(double, pushed) == [None, f"bytes={size}-"]

    run(story)


def test_what_is_kept_and_wrong_is_found_out_and_fetched_anew(
    double: Registry, home: Path, form: str
) -> None:
    pushed = double.push("app", "1", [BIG])

    async def story() -> None:
        await cut_short(double, home, pushed, 2_000_000)
        (path,) = kept(home)
        body = bytearray(path.read_bytes())
        body[1_500_000] ^= 1  # a power cut, a failing disk
        path.write_bytes(body)
        async with opened(home, form=form) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config
            assert ranges(double, pushed) == ["bytes=2000000-", None]
            assert kept(home) == []

    run(story)


def test_a_registry_without_ranges_is_read_from_the_beginning_and_adds_the_rest(
    double: Registry, home: Path
) -> None:
    pushed = double.push("app", "1", [BIG])
    blob = double.blobs[pushed.layers[0]]

    async def story() -> None:
        await cut_short(double, home, pushed, 2_000_000)
        double.on(f"blobs/{pushed.layers[0]}", lambda _request, _right: Answer(body=blob))
        async with opened(home) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config
            assert ranges(double, pushed) == ["bytes=2000000-"]

    run(story)


def test_a_blob_that_was_whole_already_is_not_asked_for(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [BIG])
    blob = double.blobs[pushed.layers[0]]

    async def story() -> None:
        await cut_short(double, home, pushed, 2_000_000)
        kept(home)[0].write_bytes(blob)
        async with opened(home) as store:
            assert (await store.pull(double.reference("app:1"))).id == pushed.config
            assert ranges(double, pushed) == []

    run(story)


def test_a_cancelled_download_is_kept_too(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [BIG])

    def halved(_request: Request, right: Answer) -> Answer:
        right.hold = double.closing
        return right

    double.on(f"blobs/{pushed.layers[0]}", halved, times=1)

    async def story() -> None:
        async with opened(home, transfer=FAST) as store:
            pull = asyncio.ensure_future(store.pull(double.reference("app:1")))
            while sum(path.stat().st_size for path in kept(home)) < 1_000_000:
                await asyncio.sleep(0.01)
            pull.cancel()
            await asyncio.wait({pull})
            (path,) = kept(home)
            size = path.stat().st_size
            assert (await store.pull(double.reference("app:1"))).id == pushed.config
            assert ranges(double, pushed) == [None, f"bytes={size}-"]

    run(story)


def test_a_blob_that_is_whole_and_wanted_is_nobodys_leftover(
    double: Registry, home: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prune, and the end of the process that fetched it, while the layer is being unpacked."""
    pushed = double.push("app", "1", [BIG])
    keep = layers.keep

    async def story() -> None:
        async with opened(home, form=form, keep_compressed=True) as store:

            async def keeping(*arguments: Any, **named: Any) -> LayerRecord:
                await store._intake.look_at_partials()
                assert await store.upkeep.prune(everything=False, dry=False) == []
                await store._intake._process.close()
                return await keep(*arguments, **named)

            monkeypatch.setattr(layers, "keep", keeping)
            image = await store.pull(double.reference("app:1"))
            (diff_id,) = image.layers
            assert store._layout.blob(diff_id).read_bytes() == double.blobs[pushed.layers[0]]
            assert store._records.layers[diff_id].blob == pushed.layers[0]
            assert kept(home) == []
        assert not [name for name in everything(home) if name.startswith("tmp/")]

    run(story)


@pytest.mark.parametrize(("age", "stays"), [(partial.LASTING + 60, False), (60, True), (-3600, True)])
def test_what_nobody_came_back_for_goes_after_a_day(
    double: Registry, home: Path, age: float, stays: bool
) -> None:
    pushed = double.push("app", "1", [BIG])

    async def story() -> None:
        await cut_short(double, home, pushed, 2_000_000)
        (path,) = kept(home)
        os.utime(path, (time.time() - age,) * 2)
        async with opened(home) as store:
            assert kept(home) == ([path] if stays else [])
            used = (await store.filesystem_usage()).used_bytes
            assert bool(used) == stays
            os.utime(path if stays else home, (time.time() - partial.LASTING - 60,) * 2)
            await store.pull(double.reference("app:1"))
        assert not [name for name in everything(home) if name.startswith(("partial/", "tmp/"))]

    run(story)
