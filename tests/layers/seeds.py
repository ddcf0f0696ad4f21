"""Small archives that between them have every form of header: the fuzzer's seeds, and fixtures elsewhere."""

from __future__ import annotations

import struct

from tests.layers.archives import (
    END,
    V7,
    directory,
    header,
    libarchive_xattr,
    long,
    member,
    padded,
    pax,
    sparse_gnu,
    sparse_pax,
)

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, identity)  # owner, user 1000, group, mask, others
    for tag, permissions, identity in (
        (1, 7, 0xFFFFFFFF), (2, 4, 1000), (4, 0, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF),
    )
)  # fmt: skip
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep


def plain() -> bytes:
    """What most images are made of."""
    return b"".join(
        (
            directory(b"./", mode=0o755, mtime=1_700_000_000),
            directory(b"etc", mtime=1_700_000_001),
            member(b"etc/passwd", b"root:x:0:0::/:/bin/sh\n", mtime=1_700_000_002),
            member(b"etc/empty", mtime=5),
            directory(b"bin"),
            member(b"bin/busybox", bytes(range(256)) * 9, mode=0o4755),
            member(b"bin/sh", flag=b"2", link=b"busybox", mode=0o777),
            member(b"bin/ls", flag=b"1", link=b"bin/busybox", mode=0o4755),
            member(b"dev/null", flag=b"3", device=(1, 3), mode=0o666),
            member(b"dev/loop", flag=b"4", device=(259, 70000), mode=0o660),
            member(b"run/pipe", flag=b"6"),
            member(b"etc/passwd", b"second\n", mtime=7),
            END,
        )
    )


def extended() -> bytes:
    """PAX: long names, times, owners, attributes; a global header; a hard link before its target."""
    deep = b"/".join([b"d" * 60] * 4)
    return b"".join(
        (
            pax([(b"comment", b"whole archive"), (b"mtime", b"99.5")], b"g"),
            member(
                deep + b"/file", b"x" * 513, mtime=-2, nanoseconds=250_000_000, uid=3_000_000_000, gid=70000
            ),
            member(b"late", flag=b"1", link=b"early"),
            member(b"early", b"y" * 512, xattrs=[(b"user.a", b"1\n2"), (b"security.capability", CAPABILITY)]),
            member(b"acl", b"z", xattrs=[(b"system.posix_acl_access", ACL), (b"trusted.t", b"\0\xff")]),
            pax([libarchive_xattr(b"user.b%20c", b"\x00libarchive"), (b"size", b"3")])
            + header(b"arch", size=9) + padded(b"abc"),
            member(b"link", flag=b"2", link=b"t/" * 300 + b"end"),
            member(b"inline", flag=b"2", link=b"u" * 440, xattrs=[(b"user.long", b"v" * 700)]),
            END,
        )
    )  # fmt: skip


def gnu() -> bytes:
    """GNU: long name and long link, base-256 numbers, V7, prefix of ustar, old type bytes."""
    return b"".join(
        (
            member(b"n" * 255, b"gnu", dialect="gnu", uid=1 << 30, mtime=-5),
            member(b"s" * 120, flag=b"2", link=b"n" * 255, dialect="gnu"),
            long(b"q" * 130) + long(b"n" * 255, b"K") + header(b"q", flag=b"1", magic=b"ustar  \0"),
            header(b"old/", flag=b"\0", magic=V7),
            header(b"old/file", flag=b"\0", size=4, magic=V7) + padded(b"old\n"),
            header(b"tail", prefix=b"pre/fix", size=1, mtime=1 << 34) + padded(b"t"),
            header(b"contiguous", flag=b"7", size=2) + padded(b"77"),
            header(b"label", flag=b"V"),
            END,
        )
    )


def sparse() -> bytes:
    """A sparse file in each of the four formats."""
    few = [(0, b"a" * 512), (4096, b"b" * 1024), (1 << 20, b"end")]
    many = [(4096 * i, bytes([65 + i % 26]) * 512) for i in range(30)]
    many.append((4096 * 30, b""))  # how GNU tar says that the file ends with a hole
    return b"".join(
        (
            sparse_gnu(b"gnu-few", few, (1 << 20) + 3),
            sparse_gnu(b"gnu-many", many, 4096 * 30),
            sparse_pax(b"pax00", few, (1 << 20) + 3, "0.0"),
            sparse_pax(b"pax01", many, 4096 * 30, "0.1"),
            sparse_pax(b"pax10", few, (1 << 20) + 3, "1.0"),
            sparse_pax(b"hole", [(1 << 22, b"")], 1 << 22, "1.0"),
            END,
        )
    )


def whiteouts() -> bytes:
    """What a layer says about the layers below it, and aufs's leftovers."""
    return b"".join(
        (
            directory(b"a"),
            member(b"a/.wh.gone"),
            directory(b"a/kept"),
            member(b".wh.a-file"),
            directory(b"opaque"),
            member(b"opaque/.wh..wh..opq"),
            member(b"opaque/.wh.inside"),
            member(b"opaque/new", b"new"),
            member(b"c/d/.wh.deep"),
            member(b".wh.again"),
            directory(b"again"),
            member(b"again/x", b"x"),
            member(b".wh..wh.aufs"),
            directory(b".wh..wh.plnk"),
            member(b".wh..wh.plnk/1.2", b"pseudo"),
            END,
        )
    )


def shapes() -> bytes:
    """Replacements, symlinked parents, names of all sorts, directories of many blocks."""
    names = b"".join(member(b"many/%s%03d" % (b"n" * (i % 90), i), b"%d" % i, mtime=i) for i in range(120))
    return b"".join(
        (
            directory(b"usr/lib"),
            member(b"lib", flag=b"2", link=b"usr/lib"),
            member(b"lib/through", b"1"),
            member(b"abs", flag=b"2", link=b"/../usr/./lib"),
            member(b"abs/through-too", b"2"),
            directory(b"was-dir"),
            member(b"was-dir/child", b"lost"),
            member(b"was-dir", b"now a file"),
            member(b"was-file", b"f"),
            directory(b"was-file"),
            member(b"/absolute", b"a"),
            member(b"x/./y/../z", b"xz"),
            member(b"\xff\xfe\n\t!", b"bytes"),
            member("\u00fc\u4e2d".encode() * 20, b"utf-8"),
            member(b"!before-dot", b""),
            names,
            END,
        )
    )


SEEDS = {
    "plain": plain,
    "extended": extended,
    "gnu": gnu,
    "sparse": sparse,
    "whiteouts": whiteouts,
    "shapes": shapes,
}
