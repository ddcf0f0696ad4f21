"""The tree that GNU tar makes of an archive, and the one that the kernel shows of our index, compared."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.layers import seen


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
