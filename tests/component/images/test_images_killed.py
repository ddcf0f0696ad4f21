"""The daemon dies in the middle: after every durable write, and at moments between."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from oci.workload import ContainerId
from tests import figures
from tests.component.images.archives import entry, write_layout
from tests.component.images.rig import content, files, opened, run, shown
from tests.doubles.registry import Registry, tar_of

BIG_FILE = random.Random(3).randbytes(3_000_000)
BIG = tar_of({"big": BIG_FILE})
ONE = tar_of({"one": b"1"})
TWO = tar_of({"two": b"2"})

KILLED = """
import asyncio, os, sys
from pathlib import Path
from tests.component.images.rig import opened
async def story():
    async with opened(Path(sys.argv[1]), form=sys.argv[3]) as store:
        pull = asyncio.ensure_future(store.pull(sys.argv[2]))
        await asyncio.wait({pull}, timeout=float(sys.argv[4]))
        os.kill(os.getpid(), 9)
asyncio.run(story())
"""


@pytest.mark.parametrize("after", [0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 5.0])
def test_a_daemon_killed_in_mid_pull_starts_with_whole_images_or_none(
    double: Registry, home: Path, form: str, after: float
) -> None:
    pushed = double.push("app", "1", [BIG, ONE])
    home.mkdir()
    subprocess.run(
        [sys.executable, "-c", KILLED, str(home), double.reference("app:1"), form, str(after)],
        cwd=Path(__file__).parents[3],
        check=False,
        timeout=60,
    )

    async def story() -> None:
        async with opened(home, form=form) as store:
            if store.find(pushed.config) is None:
                assert (content(home), store.all()) == ([], ())
            assert (await store.pull(double.reference("app:1"))).id == pushed.config
            await store.remove(pushed.config)
            assert content(home) == []

    run(story)


KILLED_AT = """
import asyncio, os, sys
from pathlib import Path
from tests.component.images.rig import opened
home, form, number, *names = sys.argv[1:]
def on_commit(count):
    if count == int(number):
        os.kill(os.getpid(), 9)
async def story():
    async with opened(Path(home), form=form, on_commit=on_commit) as store:
        for name in names:
            await store.pull(name)
            if name == names[0]:
                await store.import_archive(Path(home).parent / "archive", names=[names[1]])
        await store.remove(names[0])
        await store.remove(names[1])
asyncio.run(story())
"""


def test_a_daemon_killed_after_each_commit_shows_whole_images_alone(
    double: Registry, home: Path, form: str
) -> None:
    """Two pulls, between them an import that has the second one's name, two removals."""
    first = double.push("app", "1", [ONE, TWO])
    second = double.push("app", "2", [TWO, BIG])
    imported = double.push("other", "1", [BIG])
    archive = home.parent / "archive"
    write_layout(double, archive, entry(double, imported.manifest))
    names = [double.reference("app:1"), double.reference("app:2")]
    expected = {
        first.manifest: {"one": b"1", "two": b"2"},
        second.manifest: {"two": b"2", "big": BIG_FILE},
        imported.manifest: {"big": BIG_FILE},
    }
    points = 0
    for number in range(1, 40):
        state = home.with_name(f"state{number}")
        state.mkdir()
        ended = subprocess.run(
            [sys.executable, "-c", KILLED_AT, str(state), form, str(number), *names],
            cwd=Path(__file__).parents[3],
            check=False,
            timeout=60,
        )
        if ended.returncode == 0:
            break
        assert ended.returncode == -9
        points += 1

        async def story(state: Path = state) -> None:
            async with opened(state, form=form) as store:
                tags = [tag for record in store.all() for tag in record.tags]
                assert len(tags) == len(set(tags))
                for record in store.all():
                    rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, state)
                    with shown(rootfs, state) as root:
                        assert files(root) == expected[record.manifest_digest]
                    await store.release_rootfs(ContainerId("c"))
                for record in store.all():
                    await store.remove(record.id)
                assert content(state) == []

        run(story)
    figures.line("sweeps", f"images, kills after commits, {form}: {points} points")
    assert points >= 8  # layers that are ready at the same time share a commit
