"""Mounts by the kernel's own calls: bind, overlay of any depth, idmapped; and trees that hold some."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oci.errors import Busy, Internal, Unsupported
from oci.workload import IdMapping, NamespaceMode, NamespaceOptions, PodId, UserNamespace
from shim.files import remove_tree
from shim.kernel import layered, mount, probe
from shim.kernel.flock import acquire
from shim.kernel.mountinfo import is_mount_point, mounts_below
from shim.kernel.openat2 import open_in_root
from shim.namespaces.pin import Namespaces


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of the test's own, which goes with everything that was mounted in it."""
    place = tmp_path / "room"
    place.mkdir()
    mount.mount_tmpfs(place, size=1 << 24, mode=0o755)
    mount.set_propagation(place, mount.Flag.PRIVATE)
    try:
        yield place
    finally:
        for entry in mounts_below(place):
            mount.unmount(entry.target)


def test_a_tmpfs_is_for_data_alone_and_of_the_asked_size(room: Path) -> None:
    shm = room / "shm"
    shm.mkdir()
    mount.mount_tmpfs(shm, size=65536, mode=0o1777)
    (entry,) = mounts_below(shm)
    assert {"nosuid", "nodev", "noexec"} <= set(entry.options)
    assert (entry.type, shm.stat().st_mode & 0o7777, os.statvfs(shm).f_blocks * 4096) == (
        "tmpfs",
        0o1777,
        65536,
    )


def test_a_bind_mount_shows_the_same_files_also_without_leave_to_write(room: Path) -> None:
    (room / "source").mkdir()
    for name in ("plain", "readonly"):
        (room / name).mkdir()
    mount.bind(room / "source", room / "plain")
    mount.bind(room / "source", room / "readonly", attributes=mount.Attribute.RDONLY | mount.Attribute.NOEXEC)
    (room / "plain" / "file").write_text("seen")
    assert (room / "readonly" / "file").read_text() == "seen"
    with pytest.raises(OSError, match="Read-only file system"):
        (room / "readonly" / "other").touch()
    (entry,) = mounts_below(room / "readonly")
    assert {"ro", "noexec"} <= set(entry.options)


def test_read_only_reaches_every_mount_below_when_asked(room: Path) -> None:
    (room / "source" / "inner").mkdir(parents=True)
    mount.mount_tmpfs(room / "source" / "inner", size=65536, mode=0o755)
    (room / "target").mkdir()
    mount.bind(room / "source", room / "target", recursive=True, attributes=mount.Attribute.RDONLY)
    with pytest.raises(OSError, match="Read-only file system"):
        (room / "target" / "inner" / "file").touch()


def test_unmounting_is_the_same_for_busy_absent_and_stacked_mounts(room: Path) -> None:
    place = room / "place"
    place.mkdir()
    assert mount.unmount(place) is False
    assert mount.unmount(room / "absent") is False
    for _ in range(3):
        mount.mount_tmpfs(place, size=65536, mode=0o755)
    holder = os.open(place, os.O_RDONLY)
    try:
        assert mount.unmount_all(place) == 3
    finally:
        os.close(holder)
    assert not is_mount_point(place)


def test_unmounting_does_not_follow_a_link(room: Path) -> None:
    (room / "place").mkdir()
    mount.mount_tmpfs(room / "place", size=65536, mode=0o755)
    (room / "link").symlink_to("place")
    assert mount.unmount(room / "link") is False
    assert is_mount_point(room / "place")


def layers(room: Path, count: int, prefix: str = "") -> list[str]:
    """Directories with one file each, the top one first; all hold "common" with their own number."""
    made = []
    for number in range(count):
        layer = room / f"{prefix}layer-{number}"
        layer.mkdir(parents=True)
        (layer / f"file-{number}").touch()
        (layer / "common").write_text(str(number))
        made.append(str(layer))
    return made


Overlay = Callable[..., None]
OVERLAYS = [
    pytest.param(layered.mount_overlay, id="as the kernel allows"),
    pytest.param(layered.overlay_by_options, id="by mount(2)"),
]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize(
    ("count", "prefix"), [(1, ""), (3, "with:colon,comma\\back"), (128, "x" * 200 + "/")]
)
def test_any_number_of_layers_whatever_their_names_is_stacked(
    room: Path, overlay: Overlay, count: int, prefix: str
) -> None:
    for name in ("upper", "work", "merged"):
        (room / name).mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    lower = layers(room, count, prefix)
    overlay(room / "merged", lower, upper=str(room / "upper"), work=str(room / "work"), options=["nodev"])
    names = sorted(entry.name for entry in (room / "merged").iterdir())
    assert names == sorted(["common", *(f"file-{number}" for number in range(count))])
    assert (room / "merged" / "common").read_text() == "0"
    (room / "merged" / "common").write_text("written")
    assert (room / "upper" / "common").read_text() == "written"
    assert Path(lower[0], "common").read_text() == "0"
    (entry,) = mounts_below(room / "merged")
    assert (entry.type, "nodev" in entry.options) == ("overlay", True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.skipif(not probe.has_lowerdir_plus(), reason="the kernel takes one page of options")
def test_as_many_layers_as_the_kernel_stacks_and_not_one_more(room: Path) -> None:
    (room / "merged").mkdir()
    lower = layers(room, layered.MAX_LAYERS)
    layered.mount_overlay(room / "merged", lower)
    assert len(list((room / "merged").iterdir())) == layered.MAX_LAYERS + 1
    with pytest.raises(Unsupported, match="overlay of 501 layers"):
        layered.mount_overlay(room / "merged", [*lower, lower[0]])


def test_an_option_that_the_kernel_refuses_is_named(room: Path) -> None:
    (room / "merged").mkdir()
    with pytest.raises(OSError, match="nonsense") as refused:
        layered.mount_overlay(room / "merged", layers(room, 2), options=["nonsense=on"])
    assert refused.value.errno == errno.EINVAL
    assert not is_mount_point(room / "merged")


def test_owners_are_shifted_by_the_maps_of_a_user_namespace(room: Path, tmp_path: Path) -> None:
    maps = (IdMapping(host_id=300_000, container_id=0, length=65536),)
    options = NamespaceOptions(
        network=NamespaceMode.NODE, ipc=NamespaceMode.NODE, user=UserNamespace(uids=maps, gids=maps)
    )
    (room / "source").mkdir()
    (room / "source" / "file").touch()
    os.chown(room / "source" / "file", 7, 8)
    (room / "target").mkdir()

    async def main() -> os.stat_result:
        namespaces = Namespaces(tmp_path / "run", netns_dir=tmp_path / "netns")
        await asyncio.to_thread(namespaces.prepare)
        pinned = namespaces.plan(PodId(secrets.token_hex(32)), options)
        await namespaces.pin(pinned, options, hostname="", sysctls={})
        try:
            mount.bind_idmapped(room / "source", room / "target", pinned.user)
            return (room / "target" / "file").stat()
        finally:
            await namespaces.unpin(pinned)
            namespaces.retire()
            mount.unmount_all(tmp_path / "netns")

    status = asyncio.run(main(), debug=True)
    assert (status.st_uid, status.st_gid) == (300_007, 300_008)


def test_a_tree_with_a_mount_in_it_is_left_and_the_mount_named(room: Path) -> None:
    (room / "precious").mkdir()
    (room / "precious" / "file").touch()
    (room / "tree" / "a" / "bound").mkdir(parents=True)
    mount.bind(room / "precious", room / "tree" / "a" / "bound")  # the same file system: st_dev tells nothing
    with pytest.raises(Internal, match=r"tree/a/bound is a mount point, it is not removed \(EXDEV\)"):
        remove_tree(room / "tree")
    with pytest.raises(Internal, match=r"bound is a mount point"):
        remove_tree(room / "tree" / "a" / "bound")
    assert (room / "precious" / "file").exists()


def test_a_file_that_is_a_mount_point_is_not_removed(room: Path) -> None:
    (room / "tree").mkdir()
    for name in ("precious", "tree/bound"):
        (room / name).touch()
    mount.bind(room / "precious", room / "tree" / "bound")
    with pytest.raises(Internal, match=r"tree/bound is a mount point, it is not removed \(EBUSY\)"):
        remove_tree(room / "tree")
    assert (room / "precious").exists()


def test_a_path_below_a_root_cannot_leave_it(room: Path) -> None:
    root = room / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("inside")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "climbing").symlink_to("../../../../etc/passwd")
    (root / "magic").symlink_to("/proc/self/root/etc/passwd")

    def read(path: str, *, follow: bool = True) -> str:
        descriptor = open_in_root(root, path, os.O_RDONLY, follow=follow)
        try:
            return os.read(descriptor, 100).decode()
        finally:
            os.close(descriptor)

    assert {read(p) for p in ("etc/passwd", "/etc/passwd", "absolute", "climbing", "../etc/passwd")} == {
        "inside"
    }
    with pytest.raises(FileNotFoundError):
        read("magic")
    with pytest.raises(OSError) as refused:
        read("absolute", follow=False)
    assert refused.value.errno == errno.ELOOP


def test_a_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from shim.kernel.flock import acquire\n"
        "lock = acquire(sys.argv[1], what='state'); print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", program, str(path), *sys.path]
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None and holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=f"state is in use by process {holder.pid} "):
            acquire(path, what="state")
        holder.kill()
    lock = acquire(path, what="state")
    lock.release()
    lock.release()
    acquire(path, what="state").release()
