"""The kernel's view of our indexes, against the tree that GNU tar makes of the same archives."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.layers import fuzz, seen
from tests.layers.archives import END, directory, member
from tests.layers.seeds import ACL, CAPABILITY, SEEDS

EXAMPLES = int(os.environ.get("CRISP_LAYER_EXAMPLES", "40"))
FUZZ_SECONDS = float(os.environ.get("CRISP_FUZZ_SECONDS", "5"))
FUZZ_SEED = int(os.environ.get("CRISP_FUZZ_SEED", "1"))
PACKAGES = {
    "busybox": ["busybox"],
    "coreutils": ["coreutils"],
    "python3.11": ["python3.11", "libpython3.11-stdlib", "libpython3.11-minimal", "python3.11-minimal"],
    "perl": ["perl", "perl-base", "libperl5.36", "perl-modules-5.36"],
}


@pytest.fixture(autouse=True)
def kernel_says_nothing() -> Iterator[None]:
    """Neither EROFS nor overlayfs writes a line but that of the mount."""
    log = seen.KernelLog()
    yield
    complaints = log.complaints()
    log.close()
    assert complaints == []


def extracted(tar: Path, folder: Path) -> seen.Tree:
    """What GNU tar makes of the archive."""
    folder.mkdir()
    keep = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "--delay-directory-restore"]
    subprocess.run(
        ["tar", *keep, "--warning=none", "-xpf", tar, "-C", folder], check=True, capture_output=True
    )
    try:
        return seen.look(folder)
    finally:
        shutil.rmtree(folder)


def shown(tar: Path) -> tuple[seen.Tree, tuple[bytes, ...]]:
    """What the kernel shows of our index, and the directories that no entry describes."""
    index, builder = seen.index_of(tar.read_bytes(), 1 << 16)
    with seen.mounted(tar, index) as target:
        return seen.look(target), builder.implied


def compare(tar: Path, folder: Path) -> int:
    """Assert both trees equal, name by name; how many names there were."""
    found, implied = shown(tar)
    expected = extracted(tar, folder)
    for name in implied:  # made by whoever unpacks, at whatever time that is
        assert found[name].mtime == 0
        expected[name] = replace(expected[name], mtime=0)
    for name in sorted({*found, *expected}):
        assert found.get(name) == expected.get(name), name
    return len(found)


@pytest.mark.parametrize("name", PACKAGES)
def test_debian_packages_look_as_gnu_tar_unpacks_them(name: str, tmp_path: Path) -> None:
    known = [
        p for p in PACKAGES[name] if subprocess.run(["dpkg", "-s", p], capture_output=True).returncode == 0
    ]
    if not known:
        pytest.skip(f"{name} is not installed from Debian")
    listing = subprocess.run(["dpkg", "-L", *known], check=True, capture_output=True, text=True).stdout
    # /bin and the like are links on a merged system; by their real place the names are the same to both.
    paths = {str(Path(p).parent.resolve() / Path(p).name) for p in listing.splitlines() if os.path.lexists(p)}
    names = tmp_path / "names"
    names.write_text("".join(f".{p}\n" for p in sorted(paths) if p != "/"))
    tar = tmp_path / "layer.tar"
    arguments = ["--no-recursion", "--format=pax", "--xattrs", "--xattrs-include=*", "-C", "/"]
    subprocess.run(["tar", *arguments, "-cf", tar, "-T", names], check=True, capture_output=True)
    assert compare(tar, tmp_path / "by-tar") >= len(paths)


@pytest.mark.parametrize("form", ["gnu", "pax", "oldgnu", "ustar", "v7"])
def test_every_format_that_gnu_tar_writes_is_read(form: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / ("long" * 20 if form in ("gnu", "pax", "oldgnu") else "d")).mkdir(parents=True)
    (source / "sub/file").write_bytes(os.urandom(5000))
    os.link(source / "sub/file", source / "again")
    (source / "link").symlink_to("sub/file")
    os.utime(source / "sub/file", ns=(0, 1_600_000_000_123_456_789))
    arguments = [f"--format={form}", "-C", str(source)]
    if form not in ("ustar", "v7"):
        with (source / "holes").open("wb") as file:
            for place in range(40):
                file.seek(place * 65536)
                file.write(bytes([place]) * 4096)
            file.truncate(1 << 23)
        arguments.append("--sparse")
    if form != "v7":
        os.mkfifo(source / "fifo")
        os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    if form == "pax":
        os.setxattr(source / "sub/file", "user.key", b"value\n\0")
        os.setxattr(source / "sub", "trusted.key", b"")
        arguments += ["--xattrs", "--xattrs-include=*"]
    tar = tmp_path / "layer.tar"
    subprocess.run(["tar", *arguments, "-cf", tar, "."], check=True, capture_output=True)
    assert compare(tar, tmp_path / "by-tar") >= 5


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_every_sparse_format_that_gnu_tar_writes_is_read(version: str, tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        for place in range(30):
            file.seek(place * 65536 + 4096 * (place % 3))
            file.write(os.urandom(4096))
        file.seek(1 << 22)
        file.write(b"odd end")
    tar = tmp_path / "layer.tar"
    arguments = ["--format=pax", "--sparse", f"--sparse-version={version}", "-C", str(tmp_path)]
    subprocess.run(["tar", *arguments, "-cf", tar, "holes"], check=True, capture_output=True)
    assert tar.stat().st_size < 1 << 20
    assert compare(tar, tmp_path / "by-tar") == 2


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_mounts_as_its_tree_says(name: str, tmp_path: Path) -> None:
    assert fuzz.attempt(SEEDS[name](), tmp_path)


@pytest.mark.parametrize("name", ["plain", "sparse", "gnu"])
def test_a_layer_cut_at_any_block_is_refused_or_mounts(name: str, tmp_path: Path) -> None:
    tar = SEEDS[name]()
    taken = [fuzz.attempt(tar[:cut], tmp_path) for cut in range(0, len(tar), 512)]
    assert any(taken)
    assert not all(taken)


def test_every_file_of_the_corpus_is_refused_or_mounts(tmp_path: Path) -> None:
    for path in sorted(fuzz.CORPUS.glob("*.tar")):
        fuzz.attempt(path.read_bytes(), tmp_path)


@pytest.mark.timeout(int(FUZZ_SECONDS) + 120)
def test_mutants_are_refused_or_mount_as_their_trees_say(tmp_path: Path) -> None:
    score = fuzz.run(FUZZ_SECONDS, FUZZ_SEED, tmp_path)
    assert score.mounted > 50
    assert score.refused > 50


NAMES = st.binary(min_size=1, max_size=40).map(lambda n: n.replace(b"/", b"_").replace(b"\0", b"_"))
ATTRIBUTES = st.dictionaries(
    st.sampled_from([b"user.one", b"user.two%", b"trusted.three", b"security.capability"]),
    st.binary(min_size=1, max_size=300),
    max_size=3,
)  # fmt: skip


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """An archive of unique names, each parent before its children, as tools write them."""
    folders = [b""]
    files: list[bytes] = []
    taken = {b""}
    dialect = draw(st.sampled_from(["pax", "pax", "gnu"]))
    out = [directory(b"./", mode=draw(st.integers(0, 0o7777)), mtime=draw(st.integers(0, 1 << 31)))]
    for _ in range(draw(st.integers(0, 40))):
        name = draw(NAMES)
        path = draw(st.sampled_from(folders)) + b"/" + name
        path = path.lstrip(b"/")
        if name in (b".", b"..") or name.startswith(b".wh.") or path in taken or len(path) > 600:
            continue
        taken.add(path)
        options = {
            "mode": draw(st.integers(0, 0o7777)),
            "uid": draw(st.sampled_from([0, 1000, 65535, 65536, (1 << 31) - 1])),
            "gid": draw(st.sampled_from([0, 100, 70000])),
            "mtime": draw(st.integers(0, (1 << 33))),
            "dialect": dialect,
        }
        if dialect == "pax":
            options["nanoseconds"] = draw(st.sampled_from([0, 1, 999_999_999]))
            chosen = draw(ATTRIBUTES)
            fixed = {b"security.capability": CAPABILITY}
            xattrs = [(key, fixed.get(key, value)) for key, value in chosen.items()]
            options["xattrs"] = [
                (key.replace(b"%", b"%25"), value)
                for key, value in xattrs
                if key != b"system.posix_acl_access"
            ]
        kind = draw(st.sampled_from(["file", "file", "dir", "link", "hard", "fifo", "device"]))
        if kind == "dir":
            folders.append(path)
            out.append(directory(path, **options))
        elif kind == "link":
            options.pop("xattrs", None)
            target = draw(st.binary(min_size=1, max_size=700)).replace(b"\0", b"/")
            out.append(member(path, flag=b"2", link=target, **options))
        elif kind == "hard" and files:
            out.append(member(path, flag=b"1", link=draw(st.sampled_from(files)), dialect=dialect))
        elif kind == "fifo":
            options.pop("xattrs", None)
            out.append(member(path, flag=b"6", **options))
        elif kind == "device":
            options.pop("xattrs", None)
            device = (draw(st.integers(1, 4095)), draw(st.integers(0, (1 << 20) - 1)))
            out.append(member(path, flag=draw(st.sampled_from([b"3", b"4"])), device=device, **options))
        else:
            files.append(path)
            size = draw(st.sampled_from([0, 1, 511, 512, 513, 4095, 4097, 70_000]))
            out.append(member(path, random.Random(size).randbytes(size), **options))
    return b"".join((*out, END))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 100,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(tar=archives())
def test_generated_trees_look_as_gnu_tar_unpacks_them(tar: bytes, tmp_path: Path) -> None:
    path = tmp_path / "layer.tar"
    path.write_bytes(tar)
    compare(path, tmp_path / "by-tar")


def test_an_acl_lets_in_whom_it_names_alone() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        tar = Path(folder, "layer.tar")
        xattrs = [(b"system.posix_acl_access", ACL)]
        tar.write_bytes(directory(b"./") + member(b"f", b"secret", mode=0o770, xattrs=xattrs) + END)
        index, _ = seen.index_of(tar.read_bytes())
        with seen.mounted(tar, index) as target:
            assert os.getxattr(target / "f", "system.posix_acl_access") == ACL
            outputs = [
                subprocess.run(
                    ["setpriv", f"--reuid={uid}", "--regid=9", "--clear-groups", "cat", target / "f"],
                    capture_output=True,
                ).stdout
                for uid in (1000, 1001)
            ]
    assert outputs == [b"secret", b""]


def test_the_tools_of_erofs_find_no_fault(tmp_path: Path) -> None:
    """fsck.erofs before 1.6 knows only blocks of 4096 bytes."""
    words = subprocess.run(["fsck.erofs", "-V"], capture_output=True, text=True).stdout.split()
    version = next((word for word in words if word[:1].isdigit()), "0.0")
    if tuple(int(part) for part in version.split(".")[:2]) < (1, 7):
        pytest.skip(f"fsck.erofs is {version}; blocks of 512 bytes need 1.7")
    for name, make in SEEDS.items():
        tar = tmp_path / f"{name}.tar"
        tar.write_bytes(make())
        index = bytearray(seen.index_of(make())[0])
        index[1032] &= ~1  # the checksum of a 512-byte block crashes fsck.erofs 1.8
        image = tmp_path / f"{name}.erofs"
        image.write_bytes(index)
        done = subprocess.run(["fsck.erofs", f"--device={tar}", image], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), name
