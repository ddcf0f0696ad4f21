"""The power goes at any moment of a store's life: it starts, and no image that it shows is damaged.

Every prefix of what the store does to the disk is tried, with what was not flushed there, lost, torn or in
part. The prefix of which nothing is lost is what `kill -9` at that write leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci.errors import CrispError, Full, Internal
from shim.images.cancellation import Cancellation
from shim.images.fetching import Job
from shim.images.progress import LayerMeter
from shim.images.receive import Received
from shim.images.routes import Routes
from shim.images.store import ImageStore
from tests import figures
from tests.component.images.archives import entry, write_layout
from tests.component.images.disk import Cut, Log, recorded
from tests.component.images.rig import content, everything, failure, opened, run
from tests.component.images.scenes import whole
from tests.doubles.registry import Registry, cutting, digest_of, failing, tar_of

KEEPS = (0.0, 0.5, 0.9, 1.0)
BIG_FILE = random.Random(5).randbytes(1_300_000)
TREES = {
    "small": {"one": b"1", "d/two": b"2"},
    "big": {"big": BIG_FILE},
    "other": {"other": random.Random(6).randbytes(60_000)},
    "last": {"last": b"3"},
}
LAYERS = {name: tar_of(tree) for name, tree in TREES.items()}
BY_DIFF_ID = {digest_of(LAYERS[name]): tree for name, tree in TREES.items()}


class InThisProcess:
    """Makes layers ready where the disk is watched, instead of in a process beside."""

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        yield

    async def run(self, job: Job, meter: LayerMeter) -> Received:
        cancellation = Cancellation()
        working = asyncio.ensure_future(asyncio.to_thread(job.run, cancellation, meter, Routes()))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            cancellation.cancel()
            await asyncio.wait({working})
            if working.exception() is None:
                working.result().discard()
            raise

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def watched(home: Path, form: str, **settings: object):  # type: ignore[no-untyped-def]
    async with opened(home, form=form, **settings) as store:
        store._intake._process = InThisProcess()  # type: ignore[assignment]
        yield store


async def life(double: Registry, home: Path, form: str, archive: Path) -> None:
    """Pulls, a download that breaks off and goes on, a tag that moves, an import, removals, a restart."""
    images = [
        double.push("app", "1", [LAYERS["small"], LAYERS["big"]]),
        double.push("app", "2", [LAYERS["big"], LAYERS["other"]]),
    ]
    write_layout(double, archive, entry(double, images[1].manifest))
    big = f"blobs/{images[0].layers[1]}"
    async with watched(home, form, keep_compressed=form == "erofs") as store:
        double.on(big, cutting(1_000_000), times=1)
        double.on(big, failing(500), times=20)
        assert isinstance(await failure(store.pull(double.reference("app:1"))), CrispError)
        double.rules.clear()
        await store.pull(double.reference("app:1"))
        await store.pull(double.reference("app:2"))
        double.push("app", "1", [LAYERS["small"], LAYERS["last"]])
        moved = await store.pull(double.reference("app:1"))
        await store.remove(double.reference("app:2"))
        await store.import_archive(archive, names=[double.reference("imported:1")])
        await store.remove(images[0].config)
    async with watched(home, form) as store:
        await store.pull(double.reference("app:2"))
        await store.remove(moved.id)
        await store.remove(images[1].config)
        await store.pull(double.reference("app:1"))


def check(store: ImageStore, home: Path) -> None:
    """Everything that the store shows is whole, and it keeps nothing else."""
    whole(store, BY_DIFF_ID)
    layout = store._layout
    known = {diff_id[7:] for diff_id in store._records.layers}
    for path in layout.layers.iterdir():
        assert path.name.partition(".")[0] in known, path
    assert {path.name for path in layout.lower.iterdir()} <= {name[:24] for name in known}
    assert not [name for name in everything(home) if name.startswith("tmp/")]


@pytest.mark.timeout(1800)
def test_no_power_cut_shows_a_damaged_image_or_keeps_the_store_from_starting(
    double: Registry, home: Path, form: str, request: pytest.FixtureRequest
) -> None:
    stride = int(request.config.getoption("--sweep-stride"))
    home.mkdir()
    with recorded(home) as log:
        run(lambda: life(double, home, form, home.parent / "archive"))
    cuts = [
        Cut(at=at, keeps=keeps, seed=seed)
        for at in range(1, len(log.ops) + 1)
        for keeps in KEEPS
        for seed in range(1 + (0.0 < keeps < 1.0))
    ][:: 1 if stride == 1 else 3 * stride + 1]
    shown = 0
    for number, cut in enumerate(cuts):
        shown += _try(log, cut, home.with_name(f"cut{number}"), form, double, again=number % 40 == 0)
    figures.line(
        "sweeps",
        f"images, power cuts, {form}: {len(log.ops)} operations, {len(cuts)} cuts,"
        f" {shown} images shown after them, all whole; stride {stride}",
    )
    assert shown > 0


def _try(log: Log, cut: Cut, state: Path, form: str, double: Registry, *, again: bool) -> int:
    cut.write(log, state)
    shown = 0

    async def story() -> None:
        nonlocal shown
        async with opened(state, form=form) as store:
            shown = len(store.all())
            check(store, state)
            if again:
                await store.pull(double.reference("app:1"))
                for image in store.all():
                    await store.remove(image.id)
                assert content(state) == []

    try:
        run(story)
    except Exception as error:
        raise AssertionError(f"{cut}") from error
    shutil.rmtree(state)
    return shown


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [28, 5], ids=["full", "failing"])
def test_a_disk_that_is_full_or_fails_at_any_write_is_named_and_leaves_nothing(
    double: Registry, home: Path, form: str, number: int, request: pytest.FixtureRequest
) -> None:
    """At every write of a pull, an import and a removal; then the same succeeds."""
    stride = int(request.config.getoption("--sweep-stride"))
    pushed = double.push("app", "1", [LAYERS["small"], LAYERS["big"]])
    archive = home.parent / "archive"
    write_layout(double, archive, entry(double, pushed.manifest))
    name = double.reference("app:1")
    seen, fail_at, points = 0, 0, 0

    def fail(what: str, path: str) -> None:
        nonlocal seen
        seen += 1
        if seen == fail_at:
            raise OSError(number, "told to", path or what)

    async def attempt(store: ImageStore, verb: str) -> None:
        if verb == "pull":
            await store.pull(name)
        elif verb == "import":
            await store.import_archive(archive, names=[name])
        else:
            await store.remove(name)

    async def story() -> None:
        nonlocal seen, fail_at, points
        with recorded(home) as log:
            async with watched(home, form) as store:
                for verb, before in (("pull", ""), ("import", ""), ("remove", "pull")):
                    at = 1
                    while True:
                        if before:
                            await attempt(store, before)
                        seen, fail_at, log.fail = 0, at, fail
                        try:
                            await attempt(store, verb)
                        except CrispError as error:
                            assert isinstance(error, (Full, Internal)), error
                            assert re.search("disk is full|no space|input/output error", str(error)), error
                        log.fail = lambda _what, _path: None
                        reached = seen >= at
                        await store._keeping.close()
                        whole(store, BY_DIFF_ID)
                        if verb != "remove":  # of what the disk does not let go the next removal takes
                            check(store, home)
                        await attempt(store, verb)
                        for image in store.all():
                            await store.remove(image.id)
                        await store._keeping.close()
                        assert content(home) == [], (verb, at)
                        if not reached:
                            break
                        points += 1
                        at += stride if verb != "remove" else 1  # it has few writes

    home.mkdir()
    run(story, limit=1700)  # all of them at stride 1
    figures.line("sweeps", f"images, writes failing, {form}: {points} points, stride {stride}")
    assert points > 5
