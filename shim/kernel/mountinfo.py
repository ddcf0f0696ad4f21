"""What is mounted where: /proc/self/mountinfo as values (proc(5), kernel: fs/proc_namespace.c)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line. `root` is the part of the file system that is shown, `propagation` the optional fields."""

    id: int
    parent: int
    device: str  # "major:minor"
    root: str
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]  # "shared:5", "master:2", ...; empty is private
    type: str
    source: str
    super_options: tuple[str, ...]


def _plain(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), field))


def parse_mountinfo(text: bytes) -> tuple[Mount, ...]:
    """All mounts in the order of the file; lines that are no mount lines are left out."""
    mounts = []
    for line in text.split(b"\n"):
        before, found, after = line.partition(b" - ")
        head, tail = before.split(b" "), after.split(b" ")
        if not found or len(head) < 6 or len(tail) < 3:
            continue
        mounts.append(
            Mount(
                id=int(head[0]),
                parent=int(head[1]),
                device=head[2].decode("ascii"),
                root=_plain(head[3]),
                target=_plain(head[4]),
                options=tuple(_plain(head[5]).split(",")),
                propagation=tuple(_plain(field) for field in head[6:]),
                type=_plain(tail[0]),
                source=_plain(tail[1]),
                super_options=tuple(_plain(tail[2]).split(",")),
            )
        )
    return tuple(mounts)


def mounts() -> tuple[Mount, ...]:
    """The mounts that this process sees. Blocking; linear in their number."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())


def below(path: str | Path, table: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """The mounts at `path` or under it, in the order in which they must be unmounted: the newest first.

    `path` is taken as it stands; resolve links first where it may hold any.
    """
    top = os.fspath(path).rstrip("/")
    inside = top + "/"
    return tuple(
        mount for mount in reversed(table) if mount.target == (top or "/") or mount.target.startswith(inside)
    )


def mounts_below(path: str | Path) -> tuple[Mount, ...]:
    """The machine's mounts at or under `path`, the newest first. Blocking."""
    return below(path, mounts())


def is_mount_point(path: str | Path) -> bool:
    """Whether something is mounted exactly at `path`, bind mounts included. Blocking."""
    target = os.fspath(path)
    return any(mount.target == target for mount in mounts())
