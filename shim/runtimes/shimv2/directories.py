"""What stands in the directories of shims, and in likenesses of bundles. Blocking; knows no shim."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from shim import files

_SMALL: Final = 4 << 20


def copy_files(source: Path, target: Path) -> None:
    """The small files of a bundle, by which a shim's program knows what it left."""
    with files.writing("likeness of a bundle", target):
        files.make_private_directory(target)
        for path in source.iterdir():
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _SMALL:
                files.write_atomic(target / path.name, path.read_bytes())


def link(path: Path, target: Path) -> None:
    with contextlib.suppress(FileExistsError):
        path.symlink_to(target)


def make_bundle(path: Path, target: Path, spec: Mapping[str, Any]) -> None:
    """A bundle beside the container's own, `target`, with the root file system of that one."""
    root = {**spec["root"], "path": str(target / spec["root"]["path"])}
    files.make_private_directory(path)
    files.write_atomic(path / "config.json", json.dumps({**spec, "root": root}).encode("ascii"))


def names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except FileNotFoundError:
        return []


def read_answer(path: Path) -> dict[str, Any] | None:
    """The answer of a start, None when there is none or it cannot be read."""
    try:
        document = json.loads(path.read_bytes())
        return document if isinstance(document["address"], str) and int(document["version"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
