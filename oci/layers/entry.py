"""What one member of a layer's tar says, as a value, and the limits that a layer must keep.

Knows nothing of how the tar spelled it (`tar.py`, `pax.py`) nor of what becomes of it (`tree.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from oci.errors import BadInput

BLOCK = 512
NAME_MAX = 255  # bytes of one path component, as Linux has it


class Kind(IntEnum):
    """File types by the bits that `st_mode` has for them; a hard link has none of its own."""

    HARDLINK = 0
    FIFO = 0o010000
    CHARACTER = 0o020000
    DIRECTORY = 0o040000
    BLOCK_DEVICE = 0o060000
    FILE = 0o100000
    SYMLINK = 0o120000


class Segment(NamedTuple):
    """A run of a sparse file's bytes: where in the file, how many, where in the tar. All in bytes."""

    start: int
    length: int
    source: int


# A tuple, not a dataclass: a layer has tens of thousands of them and a frozen dataclass costs 3 us each.
class Entry(NamedTuple):
    """One member, names already cleaned: `path` has no leading slash, no `.` or `..`; `b""` is the root."""

    path: bytes
    kind: Kind
    mode: int = 0o755  # the permission bits alone, 07777
    uid: int = 0
    gid: int = 0
    seconds: int = 0  # mtime; may be negative, nanoseconds count forward from it
    nanoseconds: int = 0
    size: int = 0  # of the file as it reads, holes included
    offset: int = 0  # of the first data byte in the tar, a multiple of 512
    sparse: tuple[Segment, ...] | None = None  # None: one run of `size` bytes at `offset`
    target: bytes = b""  # symlink: verbatim; hard link: cleaned as a path
    xattrs: tuple[tuple[bytes, bytes], ...] = ()  # sorted by name
    major: int = 0
    minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a layer may ask for; beyond is bad input. Counts, or bytes where not said."""

    entries: int = 1_000_000  # members, and inodes with the directories they imply
    implied: int = 100_000  # directories that only the paths of others name
    steps: int = 50_000_000  # look-ups of one name while parents and links are found; some ten seconds
    path: int = 4096  # PATH_MAX: a longer one could not be opened
    header: int = 1 << 20  # one PAX header or GNU long name; the same as Go's archive/tar
    segments: int = 65_536  # runs of one sparse file
    chunks: int = 8 << 20  # chunk indexes of all sparse files together, 8 bytes each


def shown(name: bytes) -> str:
    """A name for an error message: UTF-8 where it is, escaped where not, shortened in the middle."""
    text = name.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"


def clean_path(raw: bytes, limit: int = 4096) -> bytes:
    """Clean a path lexically inside the root.

    A leading slash counts for nothing, as every runtime treats it; a `..` that leaves the root is bad
    input rather than clamped, since no tool makes such a layer in good faith.
    """
    if len(raw) > limit:
        raise BadInput(f"layer: entry {shown(raw)!r}: path of {len(raw)} bytes, at most {limit} are allowed")
    path = raw[2:] if raw[:2] == b"./" else raw
    if path[-1:] == b"/":
        path = path[:-1]
    if path[:1] not in (b"/", b".") and path[-1:] != b"/" and b"/." not in path and b"//" not in path:
        return path
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise BadInput(f"layer: entry {shown(raw)!r}: path leaves the root of the layer")
            parts.pop()
            continue
        parts.append(part)
    return b"/".join(parts)
