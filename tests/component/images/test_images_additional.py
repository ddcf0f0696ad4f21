"""Additional image stores: used where they lie, never written, never ours; a bad one disables only itself."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci.errors import Busy, Internal, WrongState
from oci.workload import ContainerId
from shim.images import additional
from shim.images.store import ImageStore
from shim.kernel import mount
from tests.component.images.rig import content, everything, failure, files, opened, run, shown
from tests.doubles.registry import Pushed, Registry, tar_of

BASE = tar_of({"base": b"base" * 2000, "d/low": b"low"})
TOP = tar_of({"top": b"top"})
OURS = tar_of({"ours": b"ours"})
TREE = {"base": b"base" * 2000, "d/low": b"low", "top": b"top"}


AUTO = pytest.mark.parametrize("form", ["erofs"])
"""For what does not depend on the form of layers."""


@pytest.fixture
def pushed(double: Registry) -> Pushed:
    return double.push("app", "1", [BASE, TOP])


@pytest.fixture
def shelf(double: Registry, pushed: Pushed, home: Path, form: str) -> Iterator[Path]:
    """A state directory that another daemon has filled and left, on a read-only mount."""
    directory = home.with_name("shelf")

    async def fill() -> None:
        async with opened(directory, form=form) as store:
            await store.pull(double.reference("app:1"))

    run(fill)
    mount.mount(directory, directory, "", mount.Flag.BIND)
    mount.mount("", directory, "", mount.Flag.REMOUNT | mount.Flag.BIND | mount.Flag.RDONLY)
    double.requests.clear()
    yield directory
    mount.unmount(directory)


def blobs(double: Registry) -> int:
    return len(list(double.asked("/blobs/")))


async def tree(store: ImageStore, name: str, directory: Path) -> dict[str, bytes]:
    """What a container of the image sees."""
    record = store.require(name)
    rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, directory)
    with shown(rootfs, directory) as top:
        found = files(top)
    await store.release_rootfs(ContainerId("c"))
    shutil.rmtree(directory / "upper")
    shutil.rmtree(directory / "work")
    return found


def test_an_image_of_an_additional_store_is_there_without_a_pull_and_nothing_is_written(
    double: Registry, pushed: Pushed, shelf: Path, home: Path
) -> None:
    async def story() -> None:
        async with opened(home, additional=(shelf,)) as store:
            (image,) = store.all()
            name = double.reference("app:1")
            assert (image.id, image.tags, image.pinned) == (pushed.config, (name,), True)
            assert image.annotations[additional.ANNOTATION] == str(shelf)
            assert await tree(store, name, home) == TREE
            assert await store.document(image.id) == double.blobs[pushed.config]
            usage = await store.filesystem_usage()
            assert (usage.used_bytes, usage.inodes_used) == (0, 0)
            assert await store.upkeep.prune(everything=True, dry=False) == []
            refusal = await failure(store.remove(name))
            assert isinstance(refusal, WrongState)
            assert f"additional store {shelf}, which is only read" in str(refusal)
            exported = (
                b"".join([block async for block in store.upkeep.export(name)]) if form_of(store) else b""
            )
            assert not exported or TOP in exported
        assert content(home) == []
        assert double.requests == [] or not form_of(store)

    def form_of(store: ImageStore) -> bool:
        """Whether its tars are there to be exported."""
        (other,) = store.additional
        return {layer.form for layer in other.layers.values()} == {"erofs"}

    run(story)


def test_layers_that_an_additional_store_has_are_not_fetched(
    double: Registry, shelf: Path, home: Path, form: str
) -> None:
    mixed = double.push("mixed", "1", [BASE, OURS])

    async def story() -> None:
        async with opened(home, form=form, additional=(shelf,)) as store:
            name = double.reference("mixed:1")
            record = await store.pull(name)
            assert blobs(double) == 2  # the configuration and the one layer that nobody has
            assert [
                len(store._records.layers),
                record.pinned,
                additional.ANNOTATION in record.annotations,
            ] == [
                1,
                False,
                False,
            ]
            assert await tree(store, name, home) == {
                "base": b"base" * 2000,
                "d/low": b"low",
                "ours": b"ours",
            }
            sizes = sum((home / "images" / name).stat().st_blocks * 512 for name in everything(home))
            usage = await store.filesystem_usage()
            assert abs(usage.used_bytes - sizes) <= 4096 * 4, (usage, sizes)
            await store.remove(name)
            assert [image.id for image in store.all()] == [double.push("app", "1", [BASE, TOP]).config]
        assert content(home) == []
        async with opened(home, form=form) as store:
            assert store.all() == ()

    run(story)
    assert mixed.config


@AUTO
def test_an_image_that_is_in_both_has_the_names_of_both_until_ours_is_removed(
    double: Registry, pushed: Pushed, shelf: Path, home: Path
) -> None:
    double.push("again", "2", [BASE, TOP])

    async def story() -> None:
        async with opened(home, additional=(shelf,)) as store:
            record = await store.pull(double.reference("again:2"))
            assert (record.id, blobs(double)) == (pushed.config, 1)
            names = {double.reference("again:2"), double.reference("app:1")}
            assert [set(image.tags) for image in store.all()] == [names]
            assert store.all()[0].pinned is False
            await store.remove(double.reference("app:1"))
            (left,) = store.all()
            assert (left.tags, left.pinned) == ((double.reference("app:1"),), True)
        assert content(home) == []

    run(story)


@AUTO
def test_a_tag_of_ours_comes_before_that_of_an_additional_store(
    double: Registry, shelf: Path, home: Path
) -> None:
    moved = double.push("app", "1", [OURS])

    async def story() -> None:
        async with opened(home, additional=(shelf,)) as store:
            name = double.reference("app:1")
            await store.pull(name)
            assert store.require(name).id == moved.config
            assert sorted(len(image.tags) for image in store.all()) == [0, 1]

    run(story)


@AUTO
def test_the_list_is_made_anew_when_something_of_it_changes(
    double: Registry, pushed: Pushed, loose: Path, home: Path
) -> None:
    async def story() -> None:
        async with opened(home, additional=(loose,)) as store:
            before = store._holdings.images
            assert store._holdings.images is before
            ours = await store.pull(double.reference("app:1"))
            assert [image.pinned for image in store.all()] == [False]
            await store.remove(ours.id)
            assert [image.pinned for image in store.all()] == [True]
            for path in (loose / "mirror/image").iterdir():
                path.unlink()
            await store.look_at_additional()
            assert store.all() == ()

    run(story)
    assert pushed.config


@AUTO
def test_a_file_system_from_which_the_kernel_mounts_no_layer_is_named(
    shelf: Path, pushed: Pushed, home: Path
) -> None:
    memory = home.with_name("memory")
    memory.mkdir()
    mount.mount("tmpfs", memory, "tmpfs", mount.Flag(0), "size=16m")
    try:
        shutil.copytree(shelf, memory / "store", symlinks=True)

        async def story() -> None:
            async with opened(home, additional=(memory / "store",)) as store:
                (other,) = store.additional
                assert re.search(
                    "^layer .*: the kernel does not mount it: .*; it takes Linux 6.12", other.problem
                )
                assert (store.all(), store.find(pushed.config)) == ((), None)

        run(story)
    finally:
        mount.unmount(memory)


def test_a_restart_keeps_what_containers_have_of_an_additional_store(
    double: Registry, pushed: Pushed, shelf: Path, home: Path
) -> None:
    async def story() -> None:
        async with opened(home, additional=(shelf,)) as store:
            image = store.require(pushed.config)
            rootfs = await store.acquire_rootfs(ContainerId("c"), image.id, home)
        async with opened(home, additional=(shelf,), containers=("c",)) as store:
            with shown(rootfs, home) as top:
                assert files(top) == TREE
            await store.release_rootfs(ContainerId("c"))
        assert [name for name in content(home) if "upper" not in name] == []

    run(story)


def damaged(shelf: Path) -> None:
    """Cut a file of each layer short; in the directory form take the layers away."""
    for path in (shelf / "images/layers").glob("*.tar"):
        os.truncate(path, 1)
    for path in (shelf / "images/l").iterdir():
        shutil.rmtree(path)


@pytest.fixture
def loose(shelf: Path, home: Path) -> Path:
    """The same store where the test may write."""
    copy = home.with_name("loose")
    shutil.copytree(shelf, copy, symlinks=True)
    return copy


def test_a_store_that_goes_bad_disables_only_itself_and_a_pull_brings_what_it_lacks(
    double: Registry, pushed: Pushed, loose: Path, home: Path, form: str
) -> None:
    stays = double.push("stays", "1", [OURS])
    mixed = double.push("mixed", "1", [BASE, OURS])

    async def story() -> None:
        async with opened(home, form=form, additional=(loose,)) as store:
            await store.pull(double.reference("stays:1"))
            await store.pull(double.reference("mixed:1"))
            assert store.additional[0].problem == ""
            damaged(loose)
            refusal = await failure(store.acquire_rootfs(ContainerId("c"), mixed.config, home))
            assert isinstance(refusal, Internal)
            assert f"additional store {loose} are missing or cut short: pull the image again" in str(refusal)
            (loose / "mirror/layer/new").touch()  # its daemon is at work
            await store.look_at_additional()
            assert "its files are missing or cut short (and " in store.additional[0].problem
            assert [image.id for image in store.all()] == [stays.config]
            assert store.find(double.reference("app:1")) is None
            found = [progress async for progress in store.upkeep.fsck(fix=True)]
            findings = [finding for progress in found for finding in progress.findings]
            assert [(finding.problem.split(":")[0], finding.failure) for finding in findings] == [
                (f"additional store {loose}", "it is only read")
            ]
            await store.pull(double.reference("mixed:1"))
            assert {image.id for image in store.all()} == {stays.config, mixed.config}
            assert (await tree(store, mixed.config, home))["base"] == b"base" * 2000
            assert len(store._records.layers) == 2
        shutil.rmtree(loose)
        async with opened(home, form=form, additional=(loose,)) as store:
            assert store.additional[0].problem == f"{loose}/mirror/image: no such file or directory"
            assert len(store.all()) == 2

    run(story)
    assert pushed.config


def test_a_start_without_the_store_drops_what_depends_on_it(
    double: Registry, loose: Path, home: Path, form: str
) -> None:
    mixed = double.push("mixed", "1", [BASE, OURS])

    async def story() -> None:
        async with opened(home, form=form, additional=(loose,)) as store:
            await store.pull(double.reference("mixed:1"))
        async with opened(home, form=form, additional=(loose,)) as store:
            assert {image.id for image in store.all()} >= {mixed.config}
        loose.rename(loose.with_name("away"))
        async with opened(home, form=form, additional=(loose,)) as store:
            assert store.all() == ()
            await store.pull(double.reference("mixed:1"))
            assert [image.id for image in store.all()] == [mixed.config]
            assert len(store._records.layers) == 2
            assert blobs(double) == 4, "our own layer has stayed, the other one and the configuration come"

    run(story)


def test_fsck_reads_the_layers_of_additional_stores_and_repairs_none(
    double: Registry, loose: Path, home: Path, form: str
) -> None:
    (victim,) = (
        path
        for pattern in ("layers/*.tar", "l/*/*")
        for path in sorted((loose / "images").glob(pattern))
        if path.is_file() and b"top" in path.read_bytes() and b"basebase" not in path.read_bytes()
    )
    body = victim.read_bytes()
    stat = victim.stat()
    victim.write_bytes(body.replace(b"top", b"TOP"))
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    async def story() -> None:
        async with opened(home, form=form, additional=(loose,)) as store:
            pictures = [progress async for progress in store.upkeep.fsck(fix=True)]
            (finding,) = (finding for picture in pictures for finding in picture.findings)
            assert pictures[-1].layers == 2
            assert finding.images == (double.reference("app:1"),)
            assert finding.failure == f"the additional store {loose} is only read"
        assert victim.read_bytes() != body

    run(story)


@AUTO
def test_a_store_that_does_not_answer_holds_up_nobody_for_long(
    double: Registry, pushed: Pushed, loose: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = threading.Event()
    real = additional.present

    def hanging(*args: object) -> bool:
        stuck.wait(30)
        return real(*args)  # type: ignore[arg-type]

    async def story() -> None:
        async with opened(home, additional=(loose,)) as store:
            store._additional._limit = 0.1
            monkeypatch.setattr(additional, "present", hanging)
            refusal = await failure(store.acquire_rootfs(ContainerId("c"), pushed.config, home))
            assert isinstance(refusal, Busy)
            assert f"additional store {loose}: does not answer" in str(refusal)
            (loose / "mirror/layer/new").touch()
            for _ in range(3):
                await store.look_at_additional()
            looks = [thread for thread in threading.enumerate() if thread.name == "crisp-additional"]
            assert len(looks) == 2, (
                "one look is not begun again while it hangs; the other was the container's"
            )
            assert (store.all(), store.additional[0].problem) == ((), "does not answer within 0 s")
            await store.pull(double.reference("app:1"))
            assert len(store._records.layers) == 2
            await store.remove(pushed.config)
            stuck.set()
            await asyncio.sleep(0.1)
            await store.look_at_additional()
            assert [image.id for image in store.all()] == [pushed.config]

    run(story)


@pytest.mark.parametrize("what", ["ours", "not there", "half a copy"])
def test_a_directory_that_is_no_such_store_is_said_to_be_none(home: Path, what: str) -> None:
    directory = home if what == "ours" else home.with_name("other")
    for kind in ("image", "layer"):
        (directory / "mirror" / kind).mkdir(parents=True)
    damaged = directory / "mirror/image/one.json"
    if what == "not there":
        shutil.rmtree(directory)
    elif what == "half a copy":
        (directory / "images").mkdir()
        damaged.write_text("{}")
    words = {
        "ours": "it is this daemon's own store",
        "not there": f"{directory}/mirror/image: no such file or directory",
        "half a copy": f"{damaged}: record copy is damaged",
    }

    async def story() -> None:
        async with opened(home, additional=(directory,)) as store:
            assert [other.problem for other in store.additional] == [words[what]]
            assert store.all() == ()

    run(story)
