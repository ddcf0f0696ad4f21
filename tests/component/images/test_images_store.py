"""What the store keeps: both forms show the same, layers are mounted once and released, damage is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import sqlite3
import stat
import tarfile
import time
from pathlib import Path

import pytest

from oci.errors import Absent, Full, Internal
from oci.workload import ContainerId, ImageId
from shim.images.store import ImageStore
from shim.kernel import mount
from shim.kernel.mountinfo import mounts_below
from shim.state.database import Database
from shim.state.mirror import Row
from tests.component.images.rig import content, everything, failure, files, opened, run, shown
from tests.doubles.registry import Registry, tar_of

BYTES = b"\xff\0=\n\x80".decode("utf-8", "surrogateescape")
ONE = tar_of({"one": b"1"})
TWO = tar_of({"two": b"2"})


class Tar:
    """A layer written member by member."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, body: bytes = b"", *, kind: bytes = tarfile.REGTYPE, **more: object) -> Tar:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.mtime = kind, len(body), 1_700_000_000
        member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        xattrs = more.pop("xattrs", {})
        assert isinstance(xattrs, dict)
        member.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in xattrs.items()}
        for key, value in more.items():
            setattr(member, key, value)
        self._tar.addfile(member, io.BytesIO(body))
        return self

    def directory(self, name: str, **more: object) -> Tar:
        return self.add(name, kind=tarfile.DIRTYPE, **more)

    def done(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def sparse_member() -> bytes:
    """GNU tar's sparse format 0.1 in PAX records: a megabyte of hole with a block at each end."""
    head, tail = b"h" * 512, b"t" * 512
    tar = Tar()
    tar.add("etc/sparse", head + tail)
    body = tar.done()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("etc/sparse")
        member.size = 1024
        member.pax_headers = {
            "GNU.sparse.map": f"0,512,{1 << 20},512",
            "GNU.sparse.size": str((1 << 20) + 512),
            "GNU.sparse.name": "etc/sparse",
        }
        archive.addfile(member, io.BytesIO(head + tail))
    assert body
    return buffer.getvalue()


def rich_layers() -> list[bytes]:
    """Three layers with about everything that images have."""
    base = (
        Tar()
        .directory(".", mode=0o750, uid=7)
        .directory("etc")
        .add("etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        .add("etc/gone", b"hidden by a whiteout")
        .directory("opaque")
        .add("opaque/old", b"hidden by an opaque directory")
        .directory("tmp", mode=0o1777)
        .directory("home")
        .directory(
            "home/user", mode=0o700, uid=1000, gid=1000, xattrs={"user.mark": "home", "user.bytes": BYTES}
        )
        .add("bin", kind=tarfile.SYMTYPE, linkname="usr/bin")
        .directory("usr/bin")
        .add("usr/bin/su", b"#!", mode=0o4755)
        .add("usr/bin/link", kind=tarfile.LNKTYPE, linkname="usr/bin/su")
        .add("usr/bin/cap", b"x", xattrs={"user.a": "b" * 300})
        .add("dev-null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        .add("fifo", kind=tarfile.FIFOTYPE)
        .add("long/" + "d" * 200 + "/" + "f" * 200, b"deep")
        .add("twice", b"first")
        .add("twice", b"last")
    )
    middle = (
        Tar()
        .directory("etc")
        .add("etc/.wh.gone")
        .directory("opaque")
        .add("opaque/.wh..wh..opq")
        .add("opaque/new", b"new")
        .directory("only")
        .add("only/.wh.nothing")
        .add("tmp/file", b"a parent that no entry describes")
        .add("home/user/deep/er/file", b"parents that no entry describes", uid=1000, gid=1000)
    )
    return [base.done(), middle.done(), sparse_member()]


Look = dict[str, tuple[object, ...]]


def look(top: Path) -> Look:
    """Every inode below `top` with all that a container can see of it."""
    found: Look = {}
    for base, directories, names in os.walk(top):
        for path in [Path(base), *(Path(base, name) for name in (*directories, *names))]:
            status = path.lstat()
            attributes = tuple(
                (name, os.getxattr(path, name, follow_symlinks=False))
                for name in sorted(os.listxattr(path, follow_symlinks=False))
                if not name.startswith("trusted.overlay.")
            )
            body: object = None
            if stat.S_ISREG(status.st_mode):
                body = path.read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                body = os.fspath(path.readlink())
            linked = status.st_nlink if not stat.S_ISDIR(status.st_mode) else 0
            device = status.st_rdev if stat.S_ISCHR(status.st_mode) else 0
            found[str(path.relative_to(top))] = (
                oct(status.st_mode), status.st_uid, status.st_gid, linked, device, attributes, body,
            )  # fmt: skip
    return found


async def looked_at(store: ImageStore, name: str, directory: Path) -> Look:
    record = await store.pull(name)
    container = ContainerId("looker")
    rootfs = await store.acquire_rootfs(container, record.id, directory)
    try:
        with shown(rootfs, directory) as root:
            return look(root)
    finally:
        await store.release_rootfs(container)


def test_both_forms_show_the_same_tree(double: Registry, tmp_path: Path) -> None:
    double.push("app", "1", rich_layers())

    async def story() -> None:
        seen = []
        for form in ("erofs", "directory"):
            home = tmp_path / form
            async with opened(home, form=form) as store:
                assert store.form == form
                seen.append(await looked_at(store, double.reference("app:1"), home))
        erofs, directory = seen
        assert erofs == directory
        assert "etc/gone" not in erofs
        assert "opaque/old" not in erofs
        assert erofs["twice"][-1] == b"last"
        assert erofs["usr/bin/su"] == ("0o104755", 0, 0, 2, 0, (), b"#!")
        assert erofs["usr/bin/cap"][5] == (("user.a", b"b" * 300),)
        assert erofs["dev-null"][:5] == ("0o20666", 0, 0, 1, os.makedev(1, 3))
        assert erofs["bin"][-1] == "usr/bin"
        assert erofs["etc/sparse"][-1] == b"h" * 512 + bytes((1 << 20) - 512) + b"t" * 512
        assert erofs["opaque/new"][-1] == b"new"
        assert [path for path in erofs if path.startswith("only/")] == []

    run(story)


def test_directories_that_a_layer_does_not_describe_look_as_below(
    double: Registry, home: Path, form: str
) -> None:
    double.push("app", "1", rich_layers())

    async def story() -> None:
        async with opened(home, form=form) as store:
            found = await looked_at(store, double.reference("app:1"), home)
            assert {
                path: found[path][:3] for path in (".", "tmp", "home", "home/user", "home/user/deep")
            } == {
                ".": ("0o40750", 7, 0),
                "tmp": ("0o41777", 0, 0),
                "home": ("0o40755", 0, 0),
                "home/user": ("0o40700", 1000, 1000),
                "home/user/deep": ("0o40755", 0, 0),
            }
            assert found["home/user"][5] == (("user.bytes", b"\xff\0=\n\x80"), ("user.mark", b"home"))
            assert found["home/user/deep/er/file"][1:3] == (1000, 1000)
            (record,) = store.all()
            assert len(record.layers) == len(record.config.diff_ids) + 1
            await store.remove(record.id)
            assert content(home) == []

    run(story)


def test_layers_that_were_looked_at_and_could_not_be_unmounted_are_given_back_later(
    double: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Tar().directory("tmp", mode=0o1777).done()
    double.push("app", "1", [base, tar_of({"tmp/file": b"1"})])
    unmount = mount.unmount

    def busy(target: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fspath(target))

    async def story() -> None:
        async with opened(home, form="erofs") as store:
            monkeypatch.setattr(mount, "unmount", busy)
            record = await store.pull(double.reference("app:1"))
            monkeypatch.setattr(mount, "unmount", unmount)
            assert (len(record.layers), len(mounts_below(home))) == (3, 2)
            await store.remove(record.id)
            assert content(home) == []

    run(story)


def test_a_directory_that_was_replaced_does_not_come_back(double: Registry, home: Path, form: str) -> None:
    layers = [
        Tar().directory("a", mode=0o700).directory("b", mode=0o700).done(),
        Tar().add("a/x", b"").add("b/x", b"").done(),
        Tar().add(".wh.a").add("b", b"a file now").done(),
    ]
    double.push("app", "1", layers)

    async def story() -> None:
        async with opened(home, form=form) as store:
            found = await looked_at(store, double.reference("app:1"), home)
            assert sorted(found) == [".", "b"]
            assert found["b"][-1] == b"a file now"

    run(story)


def test_more_than_a_hundred_layers_are_stacked(double: Registry, home: Path, form: str) -> None:
    stacked(double, home, form, 130)


def test_almost_as_many_layers_as_overlayfs_takes_are_stacked(double: Registry, home: Path) -> None:
    stacked(double, home, "erofs", 480)


def stacked(double: Registry, home: Path, form: str, count: int) -> None:
    layers = [tar_of({f"f{number}": b"x", "top": str(number).encode()}) for number in range(count)]
    double.push("app", "1", layers)

    async def story() -> None:
        async with opened(home, form=form) as store:
            record = await store.pull(double.reference("app:1"))
            rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, home)
            with shown(rootfs, home) as root:
                found = files(root)
            assert (len(found), found["top"]) == (count + 1, str(count - 1).encode())
            await store.release_rootfs(ContainerId("c"))
            assert mounts_below(home) == ()

    run(story)


def test_containers_of_one_image_share_its_mounts_until_the_last_has_gone(
    double: Registry, home: Path
) -> None:
    double.push("app", "1", [ONE, TWO])
    double.push("other", "1", [ONE])

    async def story() -> None:
        async with opened(home, form="erofs") as store:
            app = await store.pull(double.reference("app:1"))
            other = await store.pull(double.reference("other:1"))
            names = [ContainerId(f"c{number}") for number in range(10)]
            for name in names:
                (home / name).mkdir()
            taken = await asyncio.gather(
                *(store.acquire_rootfs(name, app.id, home / name) for name in names),
                store.acquire_rootfs(ContainerId("o"), other.id, home),
            )
            assert len(mounts_below(home)) == 2
            assert len({rootfs.mounts[0].lower for rootfs in taken[:10]}) == 1
            assert len({rootfs.mounts[0].upper for rootfs in taken}) == 11
            assert await store.acquire_rootfs(names[0], app.id, home / names[0]) == taken[0]
            await asyncio.gather(*(store.release_rootfs(name) for name in names))
            assert len(mounts_below(home)) == 1
            assert (store.in_use(app.id), store.in_use(other.id)) == (False, True)
            await store.release_rootfs(ContainerId("o"))
            await store.release_rootfs(ContainerId("o"))
            assert mounts_below(home) == ()

    run(story)


def test_an_image_in_use_loses_its_names_and_keeps_its_content(
    double: Registry, home: Path, form: str
) -> None:
    double.push("app", "1", [ONE])

    async def story() -> None:
        async with opened(home, form=form) as store:
            record = await store.pull(double.reference("app:1"))
            rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, home)
            with shown(rootfs, home) as root:
                await store.remove(record.id)
                assert (store.all(), store.find(record.id)) == ((), None)
                assert files(root) == {"one": b"1"}
                assert await store.acquire_rootfs(ContainerId("c"), record.id, home) == rootfs
                with pytest.raises(Absent, match="is not in the store: it was removed"):
                    await store.acquire_rootfs(ContainerId("d"), record.id, home)
        async with opened(home, containers=("c",), form=form) as store:
            assert store.in_use(record.id)
            assert await store.acquire_rootfs(ContainerId("c"), record.id, home) == rootfs
            await store.release_rootfs(ContainerId("c"))
            assert [name for name in content(home) if not name.startswith("..")] == []

    run(story)


def test_a_tag_is_at_one_image_also_where_its_move_cannot_be_recorded(
    double: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes the layer's record and the next commit, and then no more."""
    write, commits = Database.write, 0

    def full(database: Database, rows: list[Row], gone: list[tuple[str, str, int]]) -> None:
        nonlocal commits
        commits += any(row.kind == "image" for row in rows)
        if commits > most:
            raise sqlite3.OperationalError("database or disk is full")
        write(database, rows, gone)

    async def story() -> None:
        nonlocal commits, most
        async with opened(home) as store:
            double.push("app", "1", [ONE])
            await store.pull(double.reference("app:1"))
            double.push("app", "1", [TWO])
            for allowed in (0, 1):
                commits, most = 0, allowed
                monkeypatch.setattr(Database, "write", full)
                with contextlib.suppress(Full):
                    await store.pull(double.reference("app:1"))
                monkeypatch.setattr(Database, "write", write)
                assert [tag for image in store.all() for tag in image.tags] == [double.reference("app:1")]

    most = 0
    run(story)


def test_what_was_lent_to_a_container_that_is_no_more_is_taken_back(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])

    async def story() -> None:
        async with opened(home, form="erofs") as store:
            record = await store.pull(double.reference("app:1"))
            await store.acquire_rootfs(ContainerId("c"), record.id, home)
            await store.acquire_rootfs(ContainerId("d"), record.id, home)
        assert len(mounts_below(home)) == 1
        async with opened(home, containers=("c",), form="erofs") as store:
            assert (len(mounts_below(home)), store.in_use(record.id)) == (1, True)
        async with opened(home, form="erofs") as store:
            assert (mounts_below(home), store.in_use(record.id)) == ((), False)
            assert store.all() == (record,)

    run(story)


def test_the_writable_layer_begins_as_the_images_root(double: Registry, home: Path, form: str) -> None:
    double.push("app", "1", [Tar().directory(".", mode=0o1770, uid=5, gid=6).done()])

    async def story() -> None:
        async with opened(home, form=form) as store:
            record = await store.pull(double.reference("app:1"))
            rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, home)
            with shown(rootfs, home) as root:
                status = root.stat()
                assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1770, 5, 6)
                (root / "new").write_bytes(b"x" * 8192)
            assert (await store.usage_of(home / "upper")).used_bytes >= 8192
            await store.release_rootfs(ContainerId("c"))

    run(story)


@pytest.mark.parametrize("damage", ["cut", "gone", "index gone"])
def test_a_damaged_layer_is_named_and_the_next_start_asks_for_a_new_pull(
    double: Registry, home: Path, damage: str
) -> None:
    pushed = double.push("app", "1", [ONE, TWO])

    async def story() -> None:
        async with opened(home, form="erofs") as store:
            record = await store.pull(double.reference("app:1"))
            stem = home / "images/layers" / pushed.diff_ids[0][7:]
            if damage == "cut":
                os.truncate(stem.with_suffix(".tar"), 4096)
            else:
                stem.with_suffix(".tar" if damage == "gone" else ".erofs").unlink()
            found = await failure(store.acquire_rootfs(ContainerId("c"), record.id, home))
            assert isinstance(found, Internal)
            assert (
                f"layer {pushed.diff_ids[0]}: its files in {home / 'images'} are missing or cut"
                in found.message
            )
            assert mounts_below(home) == ()
        double.requests.clear()
        async with opened(home, form="erofs") as store:
            assert store.all() == ()
            assert await store.pull(double.reference("app:1"))
            assert [len(double.asked(layer)) for layer in pushed.layers] == [1, 0]

    run(story)


def test_removed_trees_are_gone_when_the_store_is_closed(double: Registry, home: Path) -> None:
    double.push("app", "1", [tar_of({f"d{n % 50}/f{n}": b"x" for n in range(3000)})])

    async def story() -> None:
        async with opened(home, form="directory") as store:
            await store.pull(double.reference("app:1"))
            begun = time.monotonic()
            await store.remove(double.reference("app:1"))
            taken = time.monotonic() - begun
            left = [name for name in everything(home) if name.startswith("tmp/")]
            assert content(home) == []
            assert left or taken < 0.02
        assert everything(home) == []

    run(story)


def test_a_store_holds_both_forms_at_once(double: Registry, home: Path) -> None:
    double.push("app", "1", [ONE])
    double.push("app", "2", [ONE, TWO])

    async def story() -> None:
        async with opened(home, form="directory") as store:
            await store.pull(double.reference("app:1"))
        async with opened(home, form="erofs") as store:
            record = await store.pull(double.reference("app:2"))
            assert len(store.all()) == 2
            rootfs = await store.acquire_rootfs(ContainerId("c"), record.id, home)
            with shown(rootfs, home) as root:
                assert files(root) == {"one": b"1", "two": b"2"}
            await store.release_rootfs(ContainerId("c"))
            for image in store.all():
                await store.remove(image.id)
            assert content(home) == []

    run(story)


def test_what_lies_about_is_cleared_at_the_start_and_what_is_whole_stays(
    double: Registry, home: Path
) -> None:
    double.push("app", "1", [ONE])

    async def story() -> None:
        async with opened(home, form="erofs") as store:
            record = await store.pull(double.reference("app:1"))
        images = home / "images"
        whole = content(home)
        (images / "tmp/half.tar").write_bytes(b"half")
        (images / "tmp/tree").mkdir()
        (images / "layers" / f"{'0' * 64}.tar").write_bytes(b"no record")
        (images / "documents" / ("0" * 64)).write_bytes(b"no record")
        (images / "l" / ("0" * 24)).mkdir()
        (images / "lent/x").write_bytes(b"no json")
        for name in ("lent", "documents", "layers"):
            (images / name / ".file.0123456789ab.tmp").write_bytes(b"half")
        async with opened(home, form="erofs") as store:
            assert (content(home), store.all()) == (whole, (record,))

    run(story)


def test_a_tree_that_a_failed_removal_has_left_makes_way_for_the_next_pull(
    double: Registry, home: Path
) -> None:
    pushed = double.push("app", "1", [ONE])

    async def story() -> None:
        async with opened(home, form="directory") as store:
            left = store._layout.tree(pushed.diff_ids[0])
            left.mkdir()
            (left / "old").write_bytes(b"")
            await store.pull(double.reference("app:1"))
            assert files(left) == {"one": b"1"}
            assert [name for name in everything(home) if name.startswith("tmp/")] == []

    run(story)


def test_the_accounting_is_what_du_says(double: Registry, home: Path, form: str) -> None:
    double.push("app", "1", rich_layers())
    double.push("app", "2", [*rich_layers()[:1], tar_of({f"d/f{n}": b"x" * 5000 for n in range(200)})])

    async def story() -> None:
        async with opened(home, form=form) as store:
            await store.pull(double.reference("app:1"))
            await store.pull(double.reference("app:2"))
            usage = await store.filesystem_usage()
            root = home / "images"
            top = {root, *(path for path in root.iterdir())}
            real = sum(path.lstat().st_blocks * 512 for path in root.rglob("*") if path not in top)
            doubled = sum(path.lstat().st_blocks * 512 for path in root.rglob("usr/bin/link"))  # a hard link
            assert abs(usage.used_bytes - (real - doubled)) <= real // 100
            before = time.time_ns()
            assert (await store.filesystem_usage()).timestamp >= before

    run(story)


def test_an_image_that_is_removed_while_it_is_taken_is_whole_or_absent(
    double: Registry, home: Path, form: str
) -> None:
    pushed = double.push("app", "1", [ONE, TWO])

    async def story() -> None:
        async with opened(home, form=form) as store:
            for number in range(10):
                await store.pull(double.reference("app:1"))
                container = ContainerId(f"c{number}")
                removing = asyncio.ensure_future(store.remove(double.reference("app:1")))
                for _ in range(number):
                    await asyncio.sleep(0)
                try:
                    rootfs = await store.acquire_rootfs(container, ImageId(pushed.config), home)
                    with shown(rootfs, home) as root:
                        assert files(root) == {"one": b"1", "two": b"2"}
                except Absent:
                    pass
                await removing
                await store.release_rootfs(container)
                assert [name for name in content(home) if name != "x"] == []

    run(story)
