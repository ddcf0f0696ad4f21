"""Archives as tools could have written them, made up by hypothesis; GNU tar complains of none."""

from __future__ import annotations

import random
import struct

from hypothesis import strategies as st

from tests.layers.archives import END, directory, member, sparse_gnu, sparse_pax
from tests.layers.seeds import CAPABILITY

NAMES = st.binary(min_size=1, max_size=40).map(lambda n: n.replace(b"/", b"_").replace(b"\0", b"_"))
ATTRIBUTES = st.dictionaries(
    st.sampled_from(
        [b"user.one", b"user.two%", b"trusted.three", b"security.capability", b"system.posix_acl_access"]
    ),
    st.binary(min_size=1, max_size=300),
    max_size=3,
)  # fmt: skip

KINDS = ("file", "file", "dir", "link", "hard", "fifo", "device", "sparse", "again", "orphan")
HOLES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), max_size=30)  # hole and data, in blocks


class Archive(bytes):
    """A tar that does not print itself."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def acl(mode: int) -> bytes:
    """One with a named user that agrees with the mode: where they do not, GNU tar does now this, now that."""
    parts = ((1, mode >> 6 & 7, -1), (2, 4, 1000), (4, 5, -1), (16, mode >> 3 & 7, -1), (32, mode & 7, -1))
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, share, identity & 0xFFFFFFFF) for tag, share, identity in parts
    )


def sparse(path: bytes, runs: list[tuple[int, int]], form: str) -> bytes:
    """A sparse file in one of GNU tar's four formats; without runs it is one hole of 8 GiB."""
    at, pieces = 0, []
    for hole, data in runs:
        at += 512 * hole
        pieces.append((at, bytes([65 + len(pieces)]) * (512 * data)))
        at += 512 * data
    size = at if pieces else 1 << 33
    if not pieces:
        pieces = [(size, b"")]  # how GNU tar says that a file ends with a hole
    return sparse_gnu(path, pieces, size) if form == "gnu" else sparse_pax(path, pieces, size, form)


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
            fixed = {b"security.capability": CAPABILITY, b"system.posix_acl_access": acl(options["mode"])}
            xattrs = [(key, fixed.get(key, value)) for key, value in chosen.items()]
            options["xattrs"] = [(key.replace(b"%", b"%25"), value) for key, value in xattrs]
        kind = draw(st.sampled_from(KINDS))
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
        elif kind == "sparse":
            form = draw(st.sampled_from(["gnu", "0.0", "0.1", "1.0"]))
            out.append(sparse(path[-90:].lstrip(b"/") if form == "gnu" else path, draw(HOLES), form))
        elif kind == "again" and files:  # the last of one name wins, and its other names keep what they had
            out.append(member(draw(st.sampled_from(files)), b"again %d" % len(out), **options))
        elif kind == "orphan":  # nobody describes its directories
            out.append(member(path + b"/unsaid/file", b"orphan", **options))
        else:
            files.append(path)
            size = draw(st.sampled_from([0, 1, 511, 512, 513, 4095, 4097, 70_000]))
            out.append(member(path, random.Random(size).randbytes(size), **options))
    return Archive(b"".join((*out, END)))
