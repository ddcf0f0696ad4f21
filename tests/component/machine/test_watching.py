"""Watching a directory that comes, changes, moves and goes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from shim.kernel.inotify import DirectoryWatch


def test_every_change_on_the_way_to_a_directory_is_noticed(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b" / "net.d"
    file, moved = directory / "10.conf", tmp_path / "a2"
    steps: list[Callable[[], object]] = [
        lambda: directory.mkdir(parents=True),
        lambda: file.write_text("1"),
        lambda: file.write_text("2"),
        lambda: file.replace(directory / "20.conf"),
        lambda: (directory / "20.conf").unlink(),
        lambda: shutil.rmtree(tmp_path / "a" / "b"),
        lambda: directory.mkdir(parents=True),
        lambda: file.write_text("3"),
        lambda: (tmp_path / "a").rename(moved),
        lambda: moved.rename(tmp_path / "a"),
        lambda: file.write_text("4"),
    ]

    async def main() -> None:
        changed = asyncio.Event()
        watch = DirectoryWatch(directory, changed.set, settle=0.001)
        try:
            for number, step in enumerate(steps):
                changed.clear()
                step()
                try:
                    async with asyncio.timeout(20):
                        await changed.wait()
                except TimeoutError:
                    raise AssertionError(f"step {number} was not noticed") from None
        finally:
            watch.close()
            watch.close()

    asyncio.run(main(), debug=True)


def test_what_happens_beside_the_way_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "net.d").mkdir()

    async def main() -> list[str]:
        calls: list[str] = []
        seen = asyncio.Event()

        def changed() -> None:
            calls.append("changed")
            seen.set()

        watch = DirectoryWatch(tmp_path / "net.d", changed, settle=0)
        try:
            for number in range(100):
                (tmp_path / f"beside-{number}").mkdir()
            async with asyncio.timeout(20):  # the queue is in order: what comes last was seen last
                (tmp_path / "net.d" / "file").touch()
                await seen.wait()
        finally:
            watch.close()
        return calls

    assert asyncio.run(main(), debug=True) == ["changed"]
