"""Rules of the house that no linter knows: names, sizes, and nothing left half done."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
PRODUCT = ("api", "cli", "config", "oci", "shim")
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
LONGEST = 500  # lines; about 400 is the aim
UNFINISHED = re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b|NotImplementedError|# type: ignore(?!\[)|# noqa(?!:)")
THIS_FILE = Path(__file__).resolve()


def sources(*rooms: str) -> list[Path]:
    """Python files that git knows or would add, without generated ones."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *rooms],
        cwd=TREE, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    found = [TREE / name for name in listed if name.endswith(".py") and "_pb2" not in name]
    return [path for path in found if path.exists() and path != THIS_FILE]


def test_no_room_is_a_dumping_ground() -> None:
    named = [path for path in sources() if BANNED_NAMES & {path.stem, *path.relative_to(TREE).parts}]
    assert named == []


def test_no_file_of_the_product_is_too_long() -> None:
    long = {
        str(path): count
        for path in sources(*PRODUCT)
        if (count := len(path.read_text().splitlines())) > LONGEST
    }
    assert long == {}


def test_nothing_is_left_half_done() -> None:
    found = [
        f"{path.relative_to(TREE)}:{number}: {line.strip()}"
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_every_module_of_the_product_says_what_it_is() -> None:
    silent = [
        str(path)
        for path in sources(*PRODUCT)
        if path.stat().st_size and not path.read_text().startswith('"""')
    ]
    assert silent == []
