"""Directories that images are imported from by themselves: at the start, and when something comes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard

from config.loading import load
from shim.images.preload import Preload
from shim.images.store import ImageStore
from tests.component.images.archives import entry, write_layout
from tests.component.images.rig import opened, run
from tests.doubles.registry import Registry, tar_of


def write_archive(double: Registry, path: Path, name: str) -> str:
    """An archive of one image; its id."""
    pushed = double.push(name, "1", [tar_of({name: name.encode()})])
    listed = entry(double, pushed.manifest, f"r.example/{name}:1")
    with tempfile.TemporaryDirectory() as scratch:
        top = write_layout(double, Path(scratch, "layout"), listed)
        plain = Path(scratch, "plain")
        with tarfile.open(plain, "w") as tar:
            tar.add(top, arcname=".")
        body = plain.read_bytes()
    if path.name.endswith("gz"):
        body = gzip.compress(body)
    elif path.name.endswith("zst"):
        body = zstandard.compress(body)
    copied = path.with_name(f".{path.name}.copied")
    copied.write_bytes(body)
    copied.rename(path)
    return pushed.config


@contextlib.asynccontextmanager
async def preloading(store: ImageStore, directory: Path, home: Path) -> AsyncIterator[None]:
    made = Preload(store, [directory], memory=home / "preloaded.json", quiet=0.2)
    made.start()
    try:
        yield
    finally:
        await made.close()


def refusals(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Why which file was not taken, as the log has it."""
    return {
        Path(record.path).name: record.reason  # type: ignore[attr-defined]
        for record in caplog.records
        if record.message == "images are not preloaded"
    }


async def until_there(store: ImageStore, *ids: str) -> None:
    while {record.id for record in store.all()} != set(ids):
        await asyncio.sleep(0.02)


def test_archives_of_every_packing_and_lists_come_in_and_a_bad_one_keeps_nothing(
    double: Registry, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "images"
    directory.mkdir()
    ids = [
        write_archive(double, directory / f"{name}{ending}", name)
        for name, ending in (("b", ".tar"), ("c", ".tar.gz"), ("d", ".tgz"), ("e", ".tar.zst"))
    ]
    (directory / "a.tar").write_bytes(b"no archive")
    (directory / "notes.md").write_text("not looked at")
    listed = double.push("listed", "1", [tar_of({"listed": b""})])
    late = double.push("late", "1", [tar_of({"late": b""})])
    lines = ["# images of our own", "", double.reference("listed:1"), double.reference("absent:1")]
    (directory / "list.txt").write_text("\n".join(lines))
    layout = write_layout(double, directory / "layout", entry(double, late.manifest, "r.example/late:1"))
    os.utime(layout / "index.json", (1, 1))

    async def story() -> None:
        async with opened(home) as store, preloading(store, directory, home):
            await until_there(store, *ids, listed.config, late.config)
            while "list.txt" not in refusals(caplog):
                await asyncio.sleep(0.02)

    caplog.set_level("INFO")
    run(story)
    refused = refusals(caplog)
    assert refused.keys() == {"a.tar", "list.txt"}
    assert refused["a.tar"].startswith(f"archive {directory}/a.tar: ")
    assert refused["list.txt"].startswith(f"{directory}/list.txt:4: image {double.reference('absent:1')}: ")


def test_what_comes_later_is_noticed_and_what_was_read_is_not_read_again(
    double: Registry, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "images"  # not there yet
    caplog.set_level("INFO")

    def read() -> list[str]:
        found = [Path(r.path).name for r in caplog.records if r.message == "preloading images"]  # type: ignore[attr-defined]
        caplog.clear()
        return found

    async def story() -> None:
        async with opened(home) as store:
            async with preloading(store, directory, home):
                await asyncio.sleep(0.1)
                directory.mkdir()
                one = write_archive(double, directory / "one.tar", "one")
                await until_there(store, one)
                two = write_archive(double, directory / "two.tar.gz", "two")
                await until_there(store, one, two)
                while "two.tar.gz" not in (home / "preloaded.json").read_text():
                    await asyncio.sleep(0.02)
            assert read() == ["one.tar", "two.tar.gz"]
            async with preloading(store, directory, home):
                three = write_archive(double, directory / "three.tar", "three")
                await until_there(store, one, two, three)
                while "three.tar" not in (home / "preloaded.json").read_text():
                    await asyncio.sleep(0.02)
            assert read() == ["three.tar"]
            await store.remove(two)
            new = write_archive(double, directory / "one.tar", "newer")
            async with preloading(store, directory, home):
                await until_there(store, one, two, three, new)
            assert sorted(read()) == ["one.tar", "two.tar.gz"]
            (home / "preloaded.json").write_text("{")
            async with preloading(store, directory, home):
                while len(caplog.records) < 7:  # one of the damage, two of each archive that is there
                    await asyncio.sleep(0.02)
            assert sorted(read()) == ["one.tar", "three.tar", "two.tar.gz"]

    run(story)


def test_a_file_that_still_grows_is_left_until_it_is_whole(
    double: Registry, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "images"
    directory.mkdir()
    made = write_archive(double, tmp_path / "made.tar", "made")
    body = (tmp_path / "made.tar").read_bytes()
    caplog.set_level("INFO")

    async def story() -> None:
        async with opened(home) as store, preloading(store, directory, home):
            with (directory / "made.tar").open("wb") as file:
                for start in range(0, len(body), 2000):
                    file.write(body[start : start + 2000])
                    file.flush()
                    await asyncio.sleep(0.05)
            await until_there(store, made)

    run(story)
    assert [record for record in caplog.records if record.message == "images are not preloaded"] == []


def test_the_example_of_the_page_is_a_configuration(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/archives.md").read_text()
    (tmp_path / "config.toml").write_text(
        page.split("<!-- example: preload.toml -->\n```toml\n")[1].split("```")[0]
    )
    images = load(tmp_path / "config.toml").settings.images
    assert [path.parent.name for path in images.preload_dirs] == ["agent", "agent"]
