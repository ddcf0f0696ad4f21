"""What goes into a test image, taken from this machine's own packages: values, and what makes them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of a layer. `path` has no leading slash; a directory has neither content nor link."""

    path: str
    mode: int = 0o755
    content: bytes | None = None
    link: str = ""  # target of a link
    hard: bool = False  # the link is one to an earlier entry of the layer
    uid: int = 0
    gid: int = 0


def directory(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(path=path, mode=mode, uid=uid, gid=gid)


def text(path: str, content: str, mode: int = 0o644) -> Entry:
    return Entry(path=path, mode=mode, content=content.encode())


def link(path: str, target: str) -> Entry:
    return Entry(path=path, mode=0o777, link=target)


def hard_link(path: str, target: str) -> Entry:
    """Another name for the earlier entry `target`."""
    return Entry(path=path, mode=0o755, link=target, hard=True)


def program(source: Path, path: str, mode: int = 0o755) -> Iterator[Entry]:
    """A program of this machine at `path`, and its shared libraries where its loader looks for them."""
    yield Entry(path=path, mode=mode, content=source.read_bytes())
    for library in libraries(source):
        yield Entry(path=str(library).lstrip("/"), content=library.read_bytes())


def libraries(source: Path) -> Iterator[Path]:
    """Absolute paths of the loader and of every shared library, none for a static program (ldd(1))."""
    listing = subprocess.run(["ldd", source], capture_output=True, text=True, check=False, timeout=30)
    if listing.returncode != 0 and "not a dynamic executable" in listing.stdout + listing.stderr:
        return
    for line in listing.stdout.splitlines():
        if "not found" in line:
            raise FileNotFoundError(f"{source} needs a library that this machine has not: {line.strip()}")
        match = re.search(r"(?:=> )?(/\S+) \(0x", line)
        if match:
            yield Path(match.group(1))


def tree(top: Path, below: str = "") -> Iterator[Entry]:
    """Everything in a directory of this machine, as `below`/..., owned by root."""
    for path in sorted(top.rglob("*")):
        name = str(Path(below, path.relative_to(top)))
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            yield link(name, os.fspath(path.readlink()))
        elif stat.S_ISDIR(status.st_mode):
            yield directory(name, stat.S_IMODE(status.st_mode))
        elif stat.S_ISREG(status.st_mode):
            yield Entry(path=name, mode=stat.S_IMODE(status.st_mode), content=path.read_bytes())


def with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """Each path once (the last one wins), in order, hard links last, and every parent that was not named."""
    by_path: dict[str, Entry] = {}
    for entry in entries:
        for parent in list(Path(entry.path).parents)[-2::-1]:
            by_path.setdefault(str(parent), directory(str(parent)))
        by_path[entry.path] = entry
    # A hard link comes after what it names.
    return sorted(by_path.values(), key=lambda entry: (entry.hard, entry.path))
