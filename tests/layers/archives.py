"""Composes tar archives block by block, in every dialect, valid or not. Knows no code of the product."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR = b"ustar\x0000"
GNU = b"ustar  \x00"
V7 = bytes(8)


def padded(data: bytes) -> bytes:
    """Up to the next block."""
    return data + bytes(-len(data) % BLOCK)


def number(value: int, width: int) -> bytes:
    """Octal with a NUL behind it where it fits, GNU's base 256 where not."""
    text = b"%0*o" % (width - 1, value) if value >= 0 else b""
    if value >= 0 and len(text) < width:
        return text + b"\0"
    raw = bytearray((value & ((1 << (8 * width - 1)) - 1)).to_bytes(width, "big"))
    raw[0] |= 0x80
    return bytes(raw)


def checked(block: bytes) -> bytes:
    """The header with its checksum put right."""
    blank = block[:148] + b" " * 8 + block[156:BLOCK]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def header(
    name: bytes,
    *,
    flag: bytes = b"0",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    magic: bytes = USTAR,
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    rest: bytes = b"",
) -> bytes:
    """One header block; `rest` replaces what stands from byte 345 on."""
    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            number(mode, 8),
            number(uid, 8),
            number(gid, 8),
            number(size, 12),
            number(mtime, 12),
            b" " * 8,
            flag,
            link[:100].ljust(100, b"\0"),
            magic,
            b"root".ljust(32, b"\0"),
            b"root".ljust(32, b"\0"),
            number(device[0], 8) if magic != V7 else bytes(8),
            number(device[1], 8) if magic != V7 else bytes(8),
            (rest or prefix).ljust(167, b"\0"),
        )
    )
    return checked(block)


def records(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """PAX records, each with its own length in front."""
    out = b""
    for key, value in pairs:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + len(str(len(body)))
        length = len(body) + len(str(length))
        out += b"%d" % length + body
    return out


def pax(pairs: Iterable[tuple[bytes, bytes]], flag: bytes = b"x") -> bytes:
    """An extended header (`x`) for the next entry, or a global one (`g`)."""
    body = records(pairs)
    return header(b"PaxHeaders/0", flag=flag, size=len(body)) + padded(body)


def long(text: bytes, flag: bytes = b"L") -> bytes:
    """GNU's long name (`L`) or long link target (`K`)."""
    return header(b"././@LongLink", flag=flag, size=len(text) + 1, magic=GNU) + padded(text + b"\0")


def member(
    name: bytes,
    data: bytes = b"",
    *,
    flag: bytes = b"0",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    nanoseconds: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Sequence[tuple[bytes, bytes]] = (),
    dialect: str = "pax",
) -> bytes:
    """One member with what its dialect ("pax", "gnu") needs for names, times and attributes that are long."""
    before = b""
    if dialect == "gnu":
        if len(name) > 100:
            before += long(name)
        if len(link) > 100:
            before += long(link, b"K")
    else:
        extra: list[tuple[bytes, bytes]] = []
        if len(name) > 100:
            extra.append((b"path", name))
        if len(link) > 100:
            extra.append((b"linkpath", link))
        if nanoseconds:
            whole, part = (mtime, nanoseconds) if mtime >= 0 else (-mtime - 1, 1_000_000_000 - nanoseconds)
            extra.append((b"mtime", b"%s%d.%09d" % (b"-" if mtime < 0 else b"", whole, part)))
        elif mtime < 0:
            extra.append((b"mtime", b"%d" % mtime))
        extra += [(b"SCHILY.xattr." + key, value) for key, value in xattrs]
        if uid > 0o7777777:
            extra.append((b"uid", b"%d" % uid))
        if gid > 0o7777777:
            extra.append((b"gid", b"%d" % gid))
        before += pax(extra) if extra else b""
        uid, gid, mtime = min(uid, 0o7777777), min(gid, 0o7777777), max(mtime, 0)
    block = header(
        name, flag=flag, mode=mode, uid=uid, gid=gid, size=len(data), mtime=mtime, link=link, device=device,
        magic=GNU if dialect == "gnu" else USTAR,
    )  # fmt: skip
    return before + block + padded(data)


def directory(name: bytes, **options: object) -> bytes:
    """A directory; a slash is put behind its name, as writers do."""
    options.setdefault("mode", 0o755)
    return member(name.rstrip(b"/") + b"/", flag=b"5", **options)  # type: ignore[arg-type]


def sparse_gnu(name: bytes, runs: Sequence[tuple[int, bytes]], real: int) -> bytes:
    """GNU's old sparse format: four runs in the header, 21 in each extension block."""
    table = [(start, len(data)) for start, data in runs]
    fields = [number(start, 12) + number(length, 12) for start, length in table]
    blocks = [fields[4:][i : i + 21] for i in range(0, len(fields[4:]), 21)]
    rest = bytes(41) + b"".join(fields[:4]).ljust(96, b"\0")
    rest += (b"\1" if blocks else b"\0") + number(real, 12)
    out = header(
        name, flag=b"S", size=sum(len(padded(data)) for _, data in runs[:-1]) + len(runs[-1][1]), magic=GNU,
        rest=rest,
    )  # fmt: skip
    for index, chunk in enumerate(blocks):
        more = b"\1" if index + 1 < len(blocks) else b"\0"
        out += padded(b"".join(chunk).ljust(504, b"\0") + more)
    return out + b"".join(padded(data) for _, data in runs)


def sparse_pax(name: bytes, runs: Sequence[tuple[int, bytes]], real: int, version: str) -> bytes:
    """PAX sparse 0.0 (a key for each number), 0.1 (one key) or 1.0 (the map before the data)."""
    flat = [n for start, data in runs for n in (start, len(data))]
    stored = b"".join(padded(data) for _, data in runs[:-1]) + (runs[-1][1] if runs else b"")
    if version == "0.0":
        pairs = [(b"GNU.sparse.size", b"%d" % real), (b"GNU.sparse.numblocks", b"%d" % len(runs))]
        for start, data in runs:
            pairs += [(b"GNU.sparse.offset", b"%d" % start), (b"GNU.sparse.numbytes", b"%d" % len(data))]
        return pax(pairs) + header(name, size=len(stored)) + padded(stored)
    if version == "0.1":
        pairs = [
            (b"GNU.sparse.size", b"%d" % real),
            (b"GNU.sparse.numblocks", b"%d" % len(runs)),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.map", b",".join(b"%d" % n for n in flat)),
        ]
        return pax(pairs) + header(b"GNUSparseFile.0/x", size=len(stored)) + padded(stored)
    text = padded(b"".join(b"%d\n" % n for n in (len(runs), *flat)))
    pairs = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", name),
        (b"GNU.sparse.realsize", b"%d" % real),
    ]
    return pax(pairs) + header(b"GNUSparseFile.0/x", size=len(text) + len(stored)) + text + padded(stored)


def libarchive_xattr(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """libarchive's spelling of an attribute, base64 without padding."""
    return b"LIBARCHIVE.xattr." + name, base64.b64encode(value).rstrip(b"=")
