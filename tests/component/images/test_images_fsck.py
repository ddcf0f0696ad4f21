"""The store is checked and repaired while containers run on it, says what is touched, and is cleared up."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oci.errors import Internal
from oci.layers.erofs import write_index
from oci.workload import ContainerId
from shim.images import documents, healing, layers, recovery
from shim.images.checking import Checked, CheckLayer, Part
from shim.images.fsck import Finding
from shim.images.layout import Layout
from shim.images.progress import LayerMeter
from shim.images.seal import seal_of_index
from shim.images.store import ImageStore
from shim.images.unpack import read_tree
from shim.records import ImageRecord
from tests.component.images.archives import entry, write_layout
from tests.component.images.rig import content, failure, files, opened, run, shown
from tests.component.images.test_images_store import rich_layers
from tests.doubles.registry import Pushed, Registry, failing, tar_of
from tests.layers.archives import END, directory, member
from tests.layers.seeds import ACL, CAPABILITY

BIG_FILE = random.Random(5).randbytes(700_000)
TREE = {"big": BIG_FILE, "d/one": b"1", "d/two": b"2" * 5000}
OTHER = {"other": b"o"}
USER = ContainerId("user")


async def check(store: ImageStore, *, fix: bool = False) -> list[Finding]:
    """All findings; every byte was read and told."""
    found: list[Finding] = []
    last = None
    async for progress in store.upkeep.fsck(fix=fix):
        found += progress.findings
        last = progress
    assert last is not None
    assert last.done
    return found


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


Damage = Callable[[Path], None]
DAMAGES: dict[str, Damage] = {"flipped": flip, "truncated": truncate, "deleted": Path.unlink}


def pushed_image(double: Registry) -> Pushed:
    return double.push("app", "1", [tar_of(OTHER), tar_of(TREE)])


def target(store: ImageStore, diff_id: str, part: str) -> Path:
    layout = store._layout
    return {"tar": layout.tar(diff_id), "index": layout.index(diff_id), "tree": layout.tree(diff_id) / "big"}[
        part
    ]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["tar", "index", "tree"])
def test_a_damaged_layer_is_named_with_all_that_it_touches_and_repaired_under_its_containers(
    double: Registry, home: Path, part: str, damage: str
) -> None:
    pushed = pushed_image(double)
    bad = pushed.diff_ids[1]
    form = "directory" if part == "tree" else "erofs"

    async def story() -> None:
        async with opened(home, form=form) as store:
            image = await store.pull(double.reference("app:1"))
            home.joinpath("user").mkdir()
            rootfs = await store.acquire_rootfs(USER, image.id, home / "user")
            with shown(rootfs, home / "user") as root:
                (root / "big").read_bytes()
                assert await check(store) == []
                path = target(store, bad, part)
                DAMAGES[damage](path)
                (found,) = await check(store)
                assert (found.layer, found.images, found.holders) == (
                    bad,
                    (double.reference("app:1"),),
                    (USER,),
                )
                assert str(path if part != "tree" else path.parent) in found.problem
                assert (found.repaired, found.failure) == ("", "")
                double.requests.clear()
                (found,) = await check(store, fix=True)
                assert found.failure == ""
                assert found.repaired == ("made anew from the layer" if part == "index" else "fetched again")
                asked = [request.path.rpartition("/")[2] for request in double.asked("blobs")]
                blobs = [digest for digest in asked if digest in pushed.layers]
                assert blobs == ([] if part == "index" else [pushed.layers[1]])
                assert await check(store) == []
                assert files(root) == {**TREE, **OTHER}  # the container that ran all the while
            await store.release_rootfs(USER)
            home.joinpath("next").mkdir()
            with shown(await store.acquire_rootfs(USER, image.id, home / "next"), home / "next") as root:
                assert files(root) == {**TREE, **OTHER}
            await store.release_rootfs(USER)
            await store.remove(image.id)
        assert content(home) == []

    run(story)


def test_what_a_registry_does_not_give_again_is_said_and_a_kept_stream_needs_no_registry(
    double: Registry, home: Path, form: str
) -> None:
    pushed = pushed_image(double)
    part = "tar" if form == "erofs" else "tree"

    async def story() -> None:
        async with opened(home, form=form) as store:
            image = await store.pull(double.reference("app:1"))
            flip(target(store, pushed.diff_ids[1], part))
            double.on(".", failing(403))
            (found,) = await check(store, fix=True)
            assert found.repaired == ""
            assert "wants credentials" in found.failure
            double.rules.clear()
            await store.remove(image.id)
        async with opened(home, form=form, keep_compressed=True) as store:
            await store.pull(double.reference("app:1"))
            flip(target(store, pushed.diff_ids[1], part))
            double.on(".", failing(500))
            (found,) = await check(store, fix=True)
            assert (found.repaired, found.failure) == ("fetched again", "")
            flip(store._layout.blob(pushed.diff_ids[1]))
            (found,) = await check(store, fix=True)
            assert found.repaired == "removed: it is kept for re-export alone"
            assert await check(store) == []

    run(story)


def test_a_layer_of_an_archive_cannot_be_fetched_again(double: Registry, home: Path, tmp_path: Path) -> None:
    pushed = pushed_image(double)
    write_layout(double, tmp_path / "archive", entry(double, pushed.manifest))

    async def story() -> None:
        async with opened(home) as store:
            await store.import_archive(tmp_path / "archive", names=["127.0.0.1:1/gone:1"])
            flip(store._layout.tar(pushed.diff_ids[0]))
            (found,) = await check(store, fix=True)
            assert "127.0.0.1:1/gone" in found.failure

    run(story)


def test_documents_and_strays_are_found_and_repaired(double: Registry, home: Path, form: str) -> None:
    pushed = pushed_image(double)

    async def story() -> None:
        async with opened(home, form=form) as store:
            image = await store.pull(double.reference("app:1"))
            layout = store._layout
            flip(layout.document(image.id))
            layout.document(pushed.manifest).unlink()
            strays = [layout.tar(f"sha256:{'a' * 64}"), layout.document(f"sha256:{'b' * 64}")]
            for stray in strays:
                stray.write_bytes(b"stray")
            layout.lower.joinpath("c" * 24).mkdir()
            found = await check(store)
            assert len(found) == 5
            assert {one.repaired for one in found} == {""}
            fixed = await check(store, fix=True)
            assert {one.failure for one in fixed} == {""}
            assert await check(store) == []
            assert not any(stray.exists() for stray in strays)
            assert b"rootfs" in await store.document(image.id)

    run(story)


def test_pruning_says_first_and_takes_what_nobody_uses(double: Registry, home: Path, form: str) -> None:
    old = double.push("app", "1", [tar_of(OTHER), tar_of({"old": b"x" * 9000})])

    async def story() -> None:
        async with opened(home, form=form, pinned=("*/base:*",)) as store:
            await store.pull(double.reference("app:1"))
            new = pushed_image(double)  # the tag moves: the first image has lost its name
            await store.pull(double.reference("app:1"))
            double.push("base", "1", [tar_of({"base": b"b"})])
            base = await store.pull(double.reference("base:1"))
            used = await store.pull(double.reference("app:1"))
            before = await store.filesystem_usage()
            (would,) = await store.upkeep.prune(everything=False, dry=True)
            assert (would.what, len(store.all())) == (f"{double.reference('app')}@{old.manifest}", 3)
            assert await store.upkeep.prune(everything=False, dry=False) == [would]
            assert {image.id for image in store.all()} == {new.config, base.id}
            freed = before.used_bytes - (await store.filesystem_usage()).used_bytes
            assert 0 < would.bytes <= freed <= would.bytes + 2 * 4096  # and its two documents
            home.joinpath("user").mkdir()
            await store.acquire_rootfs(USER, used.id, home / "user")
            assert await store.upkeep.prune(everything=True, dry=False) == []
            await store.release_rootfs(USER)
            assert [one.what for one in await store.upkeep.prune(everything=True, dry=False)] == [
                double.reference("app:1")
            ]
            assert [image.id for image in store.all()] == [base.id]

    run(story)


def test_a_disk_that_hangs_is_not_waited_for_on_the_event_loop(
    double: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = pushed_image(double)
    seen: list[threading.Thread] = []
    real = Path.stat

    async def story() -> None:
        async with opened(home, keep_compressed=True) as store:
            await store.pull(double.reference("app:1"))
            blob = store._layout.blob(pushed.diff_ids[1])

            def watched(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
                if path == blob:
                    seen.append(threading.current_thread())
                return real(path, follow_symlinks=follow_symlinks)

            flip(target(store, pushed.diff_ids[1], "tar"))
            monkeypatch.setattr(Path, "stat", watched)
            (found,) = await check(store, fix=True)
            assert found.repaired == "fetched again"

    run(story)
    assert seen
    assert threading.main_thread() not in seen


def test_what_was_pulled_by_digest_has_not_lost_its_name(double: Registry, home: Path) -> None:
    old = pushed_image(double)

    async def story() -> None:
        async with opened(home) as store:
            by_digest = f"{double.reference('app')}@{old.manifest}"
            assert (await store.pull(by_digest)).tags == ()
            assert await store.upkeep.prune(everything=False, dry=True) == []
            assert await store.upkeep.prune(everything=False, dry=False) == []
            await store.pull(double.reference("app:1"))
            double.push("app", "1", [tar_of(OTHER)])
            await store.pull(double.reference("app:1"))  # the tag has moved, the digest cannot
            assert await store.upkeep.prune(everything=False, dry=False) == []
            assert store.find(by_digest) is not None
            gone = {one.what for one in await store.upkeep.prune(everything=True, dry=False)}
            assert gone == {by_digest, double.reference("app:1")}

    run(story)


def test_what_a_container_takes_while_it_is_pruned_stays_and_is_not_said_to_have_gone(
    double: Registry, home: Path
) -> None:
    pushed_image(double)
    double.push("app", "2", [tar_of(TREE)])

    async def story() -> None:
        async with opened(home) as store:
            one, _ = [await store.pull(double.reference(f"app:{tag}")) for tag in (1, 2)]
            home.joinpath("user").mkdir()
            async with store._keeping._lock:
                pruning = asyncio.ensure_future(store.upkeep.prune(everything=True, dry=False))
                await asyncio.sleep(0)  # it waits for the lock, with the first image in its hand
                await store.acquire_rootfs(USER, one.id, home / "user")
            (gone,) = await pruning
            assert (gone.what, gone.bytes) == (double.reference("app:2"), 0)  # its layer is the other's too
            assert [image.id for image in store.all()] == [one.id]
            await store.release_rootfs(USER)

    run(story)


def taken_by_a_peer(archive: Path, name: str, config: str) -> None:
    """The archive is both an OCI and a docker-archive to skopeo."""
    for source in (f"oci-archive:{archive}", f"docker-archive:{archive}:{name}"):
        copy = archive.with_name("copy")
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--insecure-policy", source, f"dir:{copy}"],
            check=True,
            capture_output=True,
        )
        assert json.loads((copy / "manifest.json").read_bytes())["config"]["digest"] == config
        shutil.rmtree(copy)


@pytest.mark.parametrize("kept", [False, True])
def test_an_exported_image_is_the_same_where_it_is_imported(
    double: Registry, home: Path, form: str, kept: bool, tmp_path: Path
) -> None:
    pushed = pushed_image(double)
    archive = tmp_path / "image.tar"

    async def story() -> None:
        async with opened(home, form=form, keep_compressed=kept) as store:
            image = await store.pull(double.reference("app:1"))
            archive.write_bytes(b"".join([part async for part in store.upkeep.export(image.id)]))
            again = b"".join([part async for part in store.upkeep.export(double.reference("app:1"))])
            assert again == archive.read_bytes()
            assert not [name for name in content(home) if name.startswith("tmp/")]
        taken_by_a_peer(archive, double.reference("app:1"), pushed.config)
        other = home.with_name("other")
        async with opened(other, form="directory" if form == "erofs" else "erofs") as store:
            (found,) = await store.import_archive(archive)
            assert (found.id, found.config.diff_ids, found.tags) == (
                pushed.config,
                pushed.diff_ids,
                (double.reference("app:1"),),
            )
            assert (found.manifest_digest == pushed.manifest) == kept
            other.joinpath("user").mkdir()
            with shown(await store.acquire_rootfs(USER, found.id, other / "user"), other / "user") as root:
                assert files(root) == {**TREE, **OTHER}
            await store.release_rootfs(USER)

    run(story)


def test_a_damaged_layer_ends_its_export(double: Registry, home: Path) -> None:
    pushed = pushed_image(double)

    async def story() -> None:
        async with opened(home) as store:
            image = await store.pull(double.reference("app:1"))
            flip(store._layout.tar(pushed.diff_ids[1]))

            async def export() -> None:
                async for _ in store.upkeep.export(image.id):
                    pass

            found = await failure(export())
            assert "crisp fsck --fix" in found.message
            assert pushed.diff_ids[1] in found.message
            assert store._intake.wanted() == frozenset()

    run(story)


def test_a_layer_with_every_kind_of_file_is_whole_as_it_was_made(
    double: Registry, home: Path, form: str
) -> None:
    """Links, devices, holes, whiteouts, odd names: what made the tree and what checks it see the same."""
    double.push("app", "1", rich_layers())

    async def story() -> None:
        async with opened(home, form=form) as store:
            await store.pull(double.reference("app:1"))
            assert await check(store) == []

    run(story)


def test_a_repair_leaves_and_gives_back_the_attributes_of_files(double: Registry, home: Path) -> None:
    bound = [(b"security.capability", CAPABILITY), (b"user.mark", b"m")]
    layer = b"".join(
        (
            directory(b"d", mode=0o755, xattrs=[(b"user.of", b"directory")]),
            member(b"d/whole", b"w" * 600, uid=7, mode=0o4755, xattrs=bound),
            member(b"d/flipped", b"f" * 600, uid=7, mode=0o4755, xattrs=bound),
            member(b"d/shorter", b"s" * 600, xattrs=bound),
            member(b"d/deleted", b"d", xattrs=bound),
            member(b"d/acl", b"a", mode=0o640, xattrs=[(b"system.posix_acl_access", ACL)]),
            END,
        )
    )
    double.push("app", "1", [layer])

    async def story() -> None:
        async with opened(home, form="directory") as store:
            image = await store.pull(double.reference("app:1"))
            tree = store._layout.tree(image.layers[0])
            before = attributes(tree)
            assert before["d/whole"]["security.capability"] == CAPABILITY
            assert before["d/acl"]
            flip(tree / "d/flipped")
            truncate(tree / "d/shorter")
            tree.joinpath("d/deleted").unlink()
            os.removexattr(tree / "d", "user.of")
            tree.joinpath("d/whole").chmod(0o700)
            (found,) = await check(store, fix=True)
            assert (found.repaired, found.failure) == ("fetched again", "")
            assert attributes(tree) == before

    run(story)


def attributes(tree: Path) -> dict[str, dict[str, bytes]]:
    return {
        str(path.relative_to(tree)): {name: os.getxattr(path, name) for name in os.listxattr(path)}
        for path in tree.rglob("*")
    }


def test_what_is_mounted_never_becomes_another_file_system(double: Registry, home: Path) -> None:
    """An index that an earlier version made in its own way is not damaged, and not written over if it is."""
    pushed = pushed_image(double)
    odd = pushed.diff_ids[1]

    async def story() -> None:
        async with opened(home, form="erofs") as store:
            image = await store.pull(double.reference("app:1"))
            home.joinpath("user").mkdir()
            records, index = store._records, store._layout.index(odd)
            made = index.read_bytes()
            other = otherwise_made(store._layout.tar(odd))
            index.write_bytes(other)
            size = layers.size_of(store._layout, odd, layers.EROFS)
            await records.put(replace(records.layers[odd], seal="", size=size))
            rootfs = await store.acquire_rootfs(USER, image.id, home / "user")
            assert await check(store, fix=True) == []
            assert records.layers[odd].seal == seal_of_index(other, store._layout.implied(odd).read_bytes())
            assert index.read_bytes() == other
            with index.open("rb") as mounted:
                flip(index)
                damaged = index.read_bytes()
                (found,) = await check(store, fix=True)
                assert found.repaired.startswith("made anew from the layer; what is mounted keeps")
                assert mounted.read() == damaged
            assert index.read_bytes() == made
            assert await check(store) == []
            await store.release_rootfs(USER)
            assert rootfs.mounts

    run(story)


def otherwise_made(tar: Path) -> bytes:
    """An index that is whole, and not what is made of the layer today."""
    with tar.open("rb") as file:
        root = read_tree(file.fileno())
    big = root.entries()[b"big"]
    big.entry = big.entry._replace(mode=0o600)
    return write_index(root, tar.stat().st_size)[0]


def test_devices_of_an_image_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(tmp_path / "pipe")
    tmp_path.joinpath("link").symlink_to("device")
    tmp_path.joinpath("file").write_bytes(b"f")
    opened_ones: list[str] = []
    real = os.open

    def noted(path: str, flags: int) -> int:
        opened_ones.append(path)
        return real(path, flags)

    monkeypatch.setattr("shim.images.healing.os.open", noted)
    healing.forget_cached(tmp_path)
    monkeypatch.undo()
    assert opened_ones == [f"{tmp_path}/file"]


def test_an_image_that_is_removed_while_it_is_checked_is_no_finding_and_stays_away(
    double: Registry, home: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed_image(double)

    async def story() -> None:
        async with opened(home, form=form) as store:
            fsck = store.upkeep._fsck
            image = await store.pull(double.reference("app:1"))
            real_check = store._intake.check

            async def removed(job: CheckLayer, meter: LayerMeter) -> Checked:
                checked = await real_check(job, meter)
                await store.remove(image.id)
                return replace(checked, part=Part.CONTENT, problem="a file is gone")

            with monkeypatch.context() as patched:
                patched.setattr(store._intake, "check", removed)
                assert await check(store, fix=True) == []
            assert content(home) == []

            await store.pull(double.reference("app:1"))
            flip(store._layout.document(image.id))
            real_documents = fsck._obtaining.documents

            async def fetched(record: ImageRecord) -> dict[str, bytes]:
                found = await real_documents(record)
                await store.remove(image.id)
                return found

            with monkeypatch.context() as patched:
                patched.setattr(fsck._obtaining, "documents", fetched)
                assert await check(store, fix=True) == []
            assert content(home) == []

    run(story)


def test_a_check_that_cannot_be_made_is_a_finding_and_the_others_are_made(
    double: Registry, home: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = pushed_image(double)

    async def story() -> None:
        async with opened(home, form=form) as store:
            await store.pull(double.reference("app:1"))
            flip(target(store, pushed.diff_ids[1], "tar" if form == "erofs" else "tree"))
            real = store._intake.check

            async def one_ends(job: CheckLayer, meter: LayerMeter) -> Checked:
                if job.diff_id == pushed.diff_ids[0]:
                    raise Internal("the process for layers has ended")
                return await real(job, meter)

            with monkeypatch.context() as patched:
                patched.setattr(store._intake, "check", one_ends)
                found = {one.layer: one for one in await check(store, fix=True)}
            assert found[pushed.diff_ids[0]].failure == "the process for layers has ended"
            assert found[pushed.diff_ids[1]].repaired == "fetched again"

    run(story)


def test_a_stray_that_is_pulled_while_it_is_removed_comes_anew(
    double: Registry, home: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = pushed_image(double)
    real = recovery.set_aside

    async def story() -> None:
        async with opened(home, form=form) as store:
            loop = asyncio.get_running_loop()
            pulls: list[concurrent.futures.Future[ImageRecord]] = []

            def pulled_meanwhile(layout: Layout, plan: recovery.Plan, grave: Path) -> None:
                pulls.append(asyncio.run_coroutine_threadsafe(store.pull(double.reference("app:1")), loop))
                time.sleep(1)  # it would be there by now
                real(layout, plan, grave)

            layout = store._layout
            for diff_id in pushed.diff_ids:
                layout.tar(diff_id).write_bytes(b"stray")
                if form == "directory":
                    layout.tree(diff_id).mkdir()
            monkeypatch.setattr(recovery, "set_aside", pulled_meanwhile)
            found = await check(store, fix=True)
            assert {one.repaired for one in found} == {"removed"}
            image = await asyncio.wrap_future(pulls[0])
            assert await check(store) == []
            home.joinpath("user").mkdir()
            with shown(await store.acquire_rootfs(USER, image.id, home / "user"), home / "user") as root:
                assert files(root) == {**TREE, **OTHER}
            await store.release_rootfs(USER)

    run(story)


def test_documents_of_an_image_that_is_being_committed_are_no_strays(
    double: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.push("none", "1", [])  # it wants no layer
    written, looked = threading.Event(), threading.Event()
    real = documents.write_documents

    def slow(layout: Layout, bodies: dict[str, bytes], what: str) -> int:
        size = real(layout, bodies, what)
        written.set()
        looked.wait(1)
        return size

    async def story() -> None:
        async with opened(home) as store:
            monkeypatch.setattr("shim.images.keeping.write_documents", slow)
            pull = asyncio.ensure_future(store.pull(double.reference("none:1")))
            assert await asyncio.to_thread(written.wait, 20)
            assert await check(store, fix=True) == []
            looked.set()
            await store.document((await pull).id)
            assert await check(store) == []

    run(story)


@pytest.mark.parametrize("kept", [False, True])
def test_a_damaged_document_ends_its_export(double: Registry, home: Path, kept: bool) -> None:
    pushed = pushed_image(double)

    async def story() -> None:
        async with opened(home, keep_compressed=kept) as store:
            image = await store.pull(double.reference("app:1"))
            for digest in (pushed.config, pushed.manifest):
                path = store._layout.document(digest)
                whole = path.read_bytes()
                path.write_bytes(whole.replace(b"{", b"{ ", 1))  # what it says is the same
                found = await failure(exported(store, image.id))
                assert str(path) in found.message
                assert "crisp fsck --fix" in found.message
                path.write_bytes(whole)
            await exported(store, image.id)

    run(story)


async def exported(store: ImageStore, name: str) -> None:
    async for _ in store.upkeep.export(name):
        pass


def test_an_image_that_is_removed_while_it_is_read_leaves_nothing(
    double: Registry, home: Path, form: str
) -> None:
    pushed_image(double)

    async def story() -> None:
        async with opened(home, form=form) as store:
            for to_its_end in (True, False):
                image = await store.pull(double.reference("app:1"))
                async with contextlib.aclosing(store.upkeep.export(image.id)) as blocks:
                    await anext(blocks)
                    await store.remove(image.id)
                    if to_its_end:
                        async for _ in blocks:
                            pass
                assert content(home) == []

    run(story)


def test_a_check_that_is_ended_early_stops_before_what_it_kept_is_collected(
    double: Registry, home: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed_image(double)

    async def story() -> None:
        async with opened(home, form=form) as store:
            image = await store.pull(double.reference("app:1"))

            async def endless(_job: CheckLayer, _meter: LayerMeter) -> Checked:
                await asyncio.Event().wait()
                raise AssertionError

            monkeypatch.setattr(store._intake, "check", endless)
            async with contextlib.aclosing(store.upkeep.fsck(fix=False)) as pictures:
                await anext(pictures)
                await store.remove(image.id)
            assert store._intake.wanted() == frozenset()
            assert content(home) == []

    run(story)
