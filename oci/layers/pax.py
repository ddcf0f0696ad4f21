"""PAX extended headers (POSIX.1-2017, pax, "pax Extended Header") and GNU's sparse maps, text to values.

Knows the records; not where they stand in the archive nor which entry they belong to (`tar.py`).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from oci.errors import BadInput
from oci.layers.entry import BLOCK, Segment

Records = dict[bytes, bytes]

_NUMBER = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")
_INT64 = 1 << 63

SCHILY = b"SCHILY.xattr."
LIBARCHIVE = b"LIBARCHIVE.xattr."
SPARSE = b"GNU.sparse."
# Sparse format 0.0 repeats two keys, in pairs; they are kept here, joined as format 0.1 has them.
SPARSE_MAP = b"GNU.sparse.map"


def parse_records(data: bytes, where: str) -> Records:
    """The records `LENGTH KEY=VALUE\\n` of one header. `where` names it in errors. An empty value stays."""
    records: Records = {}
    pairs: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        space = data.find(b" ", at, at + 20)
        length_text = data[at:space]
        if space < 0 or not length_text.isdigit():
            raise BadInput(f"layer tar: {where}: a PAX record does not begin with its length")
        stop = at + int(length_text)
        equals = data.find(b"=", space, stop)
        if stop > end or equals < 0 or data[stop - 1 : stop] != b"\n":
            raise BadInput(f"layer tar: {where}: a PAX record is malformed")
        key, value = data[space + 1 : equals], data[equals + 1 : stop - 1]
        if not key or b"\0" in key or (b"\0" in value and key in (b"path", b"linkpath", b"GNU.sparse.name")):
            raise BadInput(f"layer tar: {where}: a PAX record has a NUL byte or no key")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (key == b"GNU.sparse.offset") != (len(pairs) % 2 == 0) or b"," in value:
                raise BadInput(f"layer tar: {where}: sparse map: offset and numbytes do not alternate")
            pairs.append(value)
        else:
            records[key] = value
        at = stop
    if pairs:
        records[SPARSE_MAP] = b",".join(pairs)
    return records


def number(text: bytes, where: str, limit: int = _INT64 - 1) -> int:
    """A decimal number from 0 to `limit`."""
    if _NUMBER.fullmatch(text):
        value = int(text)
        if value <= limit:
            return value
    raise BadInput(f"layer tar: {where}: {text[:40]!r} is not a number from 0 to {limit}")


def time(text: bytes, where: str) -> tuple[int, int]:
    """`[-]SECONDS[.FRACTION]` to (seconds, nanoseconds), the latter from 0 up; finer digits are cut."""
    match = _TIME.fullmatch(text)
    if match is None or int(match[2]) >= _INT64:
        raise BadInput(f"layer tar: {where}: mtime {text[:40]!r} is not a time")
    seconds = int(match[2])
    nanoseconds = int((match[3] or b"")[:9].ljust(9, b"0"))
    if match[1]:
        return (-seconds - 1, 1_000_000_000 - nanoseconds) if nanoseconds else (-seconds, 0)
    return seconds, nanoseconds


def xattrs(records: Mapping[bytes, bytes], where: str) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes of an entry, sorted by name; SCHILY's spelling wins over libarchive's."""
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(SCHILY):
            # GNU tar escapes exactly these two bytes, which a record's key cannot hold unambiguously.
            name = key[len(SCHILY) :].replace(b"%3D", b"=").replace(b"%25", b"%")
            found[name] = value
    for key, value in records.items():
        if key.startswith(LIBARCHIVE):
            name = unquote_to_bytes(key[len(LIBARCHIVE) :])
            try:
                decoded = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
            except binascii.Error as error:
                raise BadInput(f"layer tar: {where}: {LIBARCHIVE.decode()} value is not base64") from error
            found.setdefault(name, decoded)
    for name in found:
        if not name or b"\0" in name:
            raise BadInput(f"layer tar: {where}: an extended attribute has no name or a NUL byte in it")
    return tuple(sorted(found.items()))


def numbers(text: bytes, where: str) -> list[int]:
    """The comma-separated map of sparse format 0.1."""
    return [number(part, where) for part in text.split(b",")] if text else []


def segments(
    flat: list[int], *, size: int, stored: int, source: int, limit: int, where: str
) -> tuple[Segment, ...]:
    """Check a sparse map (offset, length, offset, length, ...) and place its runs in the tar.

    `size` is the file's, `stored` the bytes that the archive holds of it from `source` on. Every run
    begins on a 512-byte block of the tar, as GNU tar writes them; a map for which that is not so could be
    read in two ways (GNU tar pads each run, others do not), and is refused.
    """
    if len(flat) % 2 or len(flat) // 2 > limit:
        raise BadInput(f"layer tar: {where}: sparse map: odd length, or over {limit} runs")
    runs: list[Segment] = []
    position, taken = 0, 0
    for start, length in zip(flat[::2], flat[1::2], strict=True):
        if start < position or start + length > size:
            raise BadInput(f"layer tar: {where}: sparse map: runs overlap or pass the file's size {size}")
        position = start + length
        if not length:
            continue
        if start % BLOCK or taken % BLOCK or (length % BLOCK and position != size):
            raise BadInput(f"layer tar: {where}: sparse map: a run is not aligned to {BLOCK} bytes")
        runs.append(Segment(start, length, source + taken))
        taken += length
    if taken != stored:
        raise BadInput(f"layer tar: {where}: sparse map: runs of {taken} bytes, the archive holds {stored}")
    return tuple(runs)
