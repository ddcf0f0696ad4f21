"""Hostile and odd archives: each is refused, or what the kernel shows of it is what its tree says."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from oci.layers.erofs import IndexBuilder
from tests.layers import fuzz, seen
from tests.layers.archives import END, directory, header, member
from tests.layers.seeds import ACL, SEEDS

FUZZ_SECONDS = float(os.environ.get("CRISP_FUZZ_SECONDS", "5"))
FUZZ_SEED = int(os.environ.get("CRISP_FUZZ_SEED", "1"))


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_mounts_as_its_tree_says(name: str, tmp_path: Path) -> None:
    assert fuzz.attempt(SEEDS[name](), tmp_path).startswith("taken")


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_is_unpacked_as_its_tree_says(name: str, tmp_path: Path) -> None:
    assert fuzz.attempt_unpacking(SEEDS[name](), tmp_path).startswith("taken")


@pytest.mark.parametrize("name", ["plain", "sparse", "gnu"])
def test_a_layer_cut_at_any_block_is_refused_or_mounts(name: str, tmp_path: Path) -> None:
    tar = SEEDS[name]()
    taken = [fuzz.attempt(tar[:cut], tmp_path).startswith("taken") for cut in range(0, len(tar), 512)]
    assert any(taken)
    assert not all(taken)


def test_every_file_of_the_corpus_has_the_outcome_that_it_is_named_by(tmp_path: Path) -> None:
    found = {path.stem: fuzz.attempt(path.read_bytes(), tmp_path) for path in fuzz.CORPUS.glob("*.tar")}
    assert found == {name: name.partition("--")[0] for name in found}
    assert len(found) > 50


def test_both_forms_refuse_and_take_the_same_of_the_corpus(tmp_path: Path) -> None:
    for path in sorted(fuzz.CORPUS.glob("*.tar")):
        assert fuzz.attempt_unpacking(path.read_bytes(), tmp_path) == path.stem.partition("--")[0]


@pytest.mark.parametrize("form", fuzz.FORMS)
@pytest.mark.timeout(int(FUZZ_SECONDS) + 120)
def test_mutants_are_refused_or_look_as_their_trees_say(form: str, tmp_path: Path) -> None:
    score = fuzz.run(FUZZ_SECONDS, FUZZ_SEED, tmp_path, each=fuzz.FORMS[form])
    assert score.mounted > 20
    assert score.refused > 50


def test_a_file_beyond_four_gigabytes_is_read_to_its_end(tmp_path: Path) -> None:
    """On disk it is a hole with a few bytes; the index writer gets all of it."""
    size, marks = (5 << 30) + 3, {0: b"first", (4 << 30) - 2: b"over the edge", (5 << 30): b"end"}
    head, behind = header(b"huge", size=size), member(b"small", b"after") + END
    tar, builder = tmp_path / "layer.tar", IndexBuilder()
    with tar.open("wb") as file:
        file.write(head)
        for at, data in marks.items():
            file.seek(len(head) + at)
            file.write(data)
        file.seek(len(head) + size + -size % 512)
        file.write(behind)
    zeros = bytes(1 << 24)
    builder.receive(head)
    for at in range(0, size + -size % 512, len(zeros)):
        builder.receive(zeros[: size + -size % 512 - at])
    builder.receive(behind)
    with seen.mounted(tar, builder.finish()) as target, (target / "huge").open("rb") as file:
        assert (target / "huge").stat().st_size == size
        for at, data in marks.items():
            file.seek(at)
            assert file.read(len(data)) == data
        assert file.read() == b""
        assert (target / "small").read_bytes() == b"after"


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
        whole, builder = seen.index_of(make())
        index = bytearray(whole)
        index[1032] &= ~1  # the checksum of a 512-byte block crashes fsck.erofs 1.8
        image = tmp_path / f"{name}.erofs"
        image.write_bytes(index)
        done = subprocess.run(["fsck.erofs", f"--device={tar}", image], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), name
        image.write_bytes(whole)
        told = subprocess.run(["dump.erofs", "-s", image], check=True, capture_output=True, text=True).stdout
        facts = {
            key.strip(): value.strip() for key, _, value in (x.partition(":") for x in told.splitlines())
        }
        assert facts["Filesystem blocksize"] == "512"
        assert facts["Filesystem inode count"] == str(builder.inodes)
        assert facts["Filesystem features"] == "sb_csum mtime chunked_file device_table"
