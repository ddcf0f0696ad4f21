"""Small files whole or not at all; trees removed without going astray."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from oci.errors import CrispError, Full, Internal
from shim.files import is_read_only, make_private_directory, remove_tree, write_atomic, writing


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_with_the_asked_mode_whatever_the_umask(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(b"old")
    old = os.umask(0o077)
    try:
        write_atomic(file, b"new" * 100_000, mode=0o644, durable=durable)
    finally:
        os.umask(old)
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"new" * 100_000, 0o644)
    assert names(tmp_path) == ["record.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(b"old")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, b"new")
    monkeypatch.undo()
    assert (file.read_bytes(), names(tmp_path)) == (b"old", ["record.json"])


def test_a_link_in_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"kept")
    (tmp_path / "file").symlink_to("outside")
    write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "outside").read_bytes() == b"kept"
    assert not (tmp_path / "file").is_symlink()


def test_a_private_directory_gets_its_mode_also_when_it_was_there(tmp_path: Path) -> None:
    made = make_private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o777)
    assert stat.S_IMODE(make_private_directory(made, 0o750).stat().st_mode) == 0o750


def test_a_link_or_file_is_no_private_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(Internal, match="is something else"):
            make_private_directory(tmp_path / name)


def test_a_tree_goes_with_its_links_and_what_they_point_at_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    (tree / "a" / "to-directory").symlink_to(kept)
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "pipe")
    (tree / "a").chmod(0o500)
    remove_tree(tree)
    assert (names(tmp_path), names(kept)) == (["kept"], ["file"])


def test_a_link_is_removed_itself(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    remove_tree(tmp_path / "link")
    assert names(tmp_path) == ["kept"]


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    remove_tree(tmp_path / "absent")
    remove_tree(tmp_path / "absent" / "too")
    assert names(tmp_path) == []


def test_a_tree_deeper_than_paths_and_descriptors_allow_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "deep"
    tree.mkdir()
    level = os.open(tree, os.O_RDONLY)
    for _ in range(3000):  # 3000 names of 30 letters: beyond PATH_MAX, beyond any limit of recursion
        os.mkdir("d" * 30, dir_fd=level)
        below = os.open("d" * 30, os.O_RDONLY, dir_fd=level)
        os.close(level)
        level = below
    os.close(level)
    remove_tree(tree)
    assert names(tmp_path) == []


def test_a_file_in_place_of_a_tree_is_removed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remove_tree(tmp_path / "file")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, Full, "pod files: /a/b: No space left on device (ENOSPC), free some space"),
        (errno.EDQUOT, Full, "pod files: /a/b: Disk quota exceeded (EDQUOT), free some space"),
        (errno.EROFS, Internal, "pod files: /a/b: Read-only file system (EROFS), make its file system writ"),
        (errno.EIO, Internal, "pod files: /a/b: Input/output error (EIO)"),
    ],
)
def test_a_failed_write_is_told_by_its_kind(number: int, kind: type[CrispError], words: str) -> None:
    with pytest.raises(kind) as failure, writing("pod files", Path("/a/b")):
        raise OSError(number, os.strerror(number))
    assert failure.value.message.startswith(words)


@pytest.mark.parametrize(("number", "told"), [(errno.EROFS, True), (errno.ENOSPC, False), (None, False)])
def test_only_a_refused_write_makes_a_directory_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, told: bool
) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(number, os.strerror(number or 0))

    if number is not None:
        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert is_read_only(tmp_path) is told
    assert names(tmp_path) == []
