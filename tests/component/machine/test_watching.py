"""Watching a directory that comes, changes, moves and goes."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from oci.errors import Full
from shim.kernel import libc
from shim.kernel.inotify import DirectoryWatch


async def every_step_is_noticed(directory: Path, steps: list[Callable[[], object]]) -> None:
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
        assert watch.armed
    finally:
        watch.close()
        watch.close()
    assert not watch.armed


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

    asyncio.run(every_step_is_noticed(directory, steps), debug=True)


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


def test_a_directory_behind_a_link_is_followed_through_its_removal(tmp_path: Path) -> None:
    real, link = tmp_path / "agent" / "net.d", tmp_path / "etc" / "net.d"
    real.mkdir(parents=True)
    link.parent.mkdir()
    link.symlink_to(real)
    steps: list[Callable[[], object]] = [
        lambda: (real / "10.conf").touch(),
        lambda: shutil.rmtree(tmp_path / "agent"),
        lambda: real.mkdir(parents=True),
        lambda: (real / "10.conf").touch(),
        link.unlink,
        link.mkdir,
        lambda: (link / "20.conf").touch(),
    ]
    asyncio.run(every_step_is_noticed(link, steps), debug=True)


def test_without_watches_the_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *arguments: object, path: str = "") -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(libc, "call", refuse)

    async def main() -> None:
        with pytest.raises(Full, match=r"Too many open files \(raise fs\.inotify\.max_user_instances"):
            DirectoryWatch(tmp_path, lambda: None)

    asyncio.run(main(), debug=True)
