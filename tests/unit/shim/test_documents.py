"""Directories of documents: what is read again, what is passed over and why."""

from __future__ import annotations

import os
from pathlib import Path

from oci.errors import BadInput
from shim.documents import Documents, Found

PARSED: list[str] = []


def parse(data: bytes, path: str) -> str:
    PARSED.append(Path(path).name)
    if b"bad" in data:
        raise BadInput(f"thing {path}: bad")
    return data.decode()


def documents(*directories: Path) -> Documents[str]:
    PARSED.clear()
    return Documents(directories, endings=(".json",), parse=parse, what="thing")


def test_files_are_found_by_directory_and_name_and_parsed_once(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "d.json").mkdir()
    here, gone = documents(tmp_path, tmp_path / "gone"), tmp_path / "gone"
    expected = Found(
        documents=((tmp_path, (("a.json", "a.json"), ("b.json", "b.json"))), (gone, ())), problems=()
    )

    assert here.look() == expected
    assert here.look() == expected
    assert PARSED == ["a.json", "b.json"]


def test_a_changed_file_is_parsed_again_and_one_that_went_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    here = documents(tmp_path)
    here.look()
    new = tmp_path / "new"
    new.write_text("2")
    new.replace(tmp_path / "a.json")
    assert here.look().documents == ((tmp_path, (("a.json", "2"),)),)
    (tmp_path / "a.json").unlink()
    assert here.look().documents == ((tmp_path, ()),)


def test_what_cannot_be_read_is_passed_over_and_told_each_time(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("bad")
    (tmp_path / "b.json").write_text("good")
    (tmp_path / "c.json").symlink_to("nowhere")
    with (tmp_path / "d.json").open("wb") as file:
        os.ftruncate(file.fileno(), 9 << 20)
    (tmp_path / "e.json").symlink_to("e.json")
    here = documents(tmp_path)
    for _ in range(2):
        found = here.look()
        assert found.documents == ((tmp_path, (("b.json", "good"),)),)
        assert found.problems == (
            f"thing {tmp_path}/a.json: bad",
            f"thing {tmp_path}/d.json: over 8388608 bytes",
            f"thing {tmp_path}/e.json: Too many levels of symbolic links",
        )
