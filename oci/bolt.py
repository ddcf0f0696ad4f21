"""Reading a bbolt database (go.etcd.io/bbolt, file format 2), in which containerd keeps its metadata. Pure.

Only reads, and believes nothing: every page, offset and depth is checked, so that a damaged file is an error
and never a loop. What a writer does meanwhile is not seen: the newest of the two whole headers decides.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from oci.errors import BadInput

_MAGIC = 0xED0CDAED
_VERSION = 2
_PAGE = struct.Struct("<QHHI")  # id, flags, count, overflow
_META = struct.Struct("<IIIIQQQQQ")  # magic, version, page size, flags, root, sequence, freelist, pages, txid
_BRANCH = struct.Struct("<IIQ")  # position from this element, key size, page
_LEAF = struct.Struct("<IIII")  # flags, position from this element, key size, value size
_BUCKET = struct.Struct("<QQ")  # root page, 0 for a bucket within this value; sequence
_BRANCH_PAGE, _LEAF_PAGE, _META_PAGE = 0x01, 0x02, 0x04
_IS_BUCKET = 0x01
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class _Page:
    """A page's elements: `data` from `start` on, as far as the page goes."""

    flags: int
    count: int
    start: int  # of the first element
    end: int


class Bucket:
    """A bucket: names to values or further buckets, in the order of the names' bytes."""

    def __init__(self, database: Database, page: _Page) -> None:
        self._database = database
        self._page = page

    def values(self) -> Iterator[tuple[bytes, bytes]]:
        """Every name with a value. Raises BadInput (damage)."""
        for key, flags, value in self._items():
            if not flags & _IS_BUCKET:
                yield key, value

    def buckets(self) -> Iterator[tuple[bytes, Bucket]]:
        """Every bucket in this one. Raises BadInput (damage)."""
        for key, flags, value in self._items():
            if flags & _IS_BUCKET:
                yield key, self._database.bucket_of(value)

    def bucket(self, *names: bytes) -> Bucket | None:
        """The bucket at the end of that way, None when there is none."""
        found: Bucket | None = self
        for name in names:
            found = None if found is None else next((b for key, b in found.buckets() if key == name), None)
        return found

    def _items(self) -> Iterator[tuple[bytes, int, bytes]]:
        yield from self._database.leaves(self._page, _DEEPEST)


class Database:
    """A whole file in memory. Raises BadInput when it is none."""

    def __init__(self, data: bytes, *, what: str) -> None:
        self._data = data
        self._what = what
        found = [meta for number in (0, 1) if (meta := self._meta(number)) is not None]
        if not found:
            raise BadInput(f"{what}: not a bbolt database, or both of its headers are damaged")
        _, self._page_size, root = max(found)
        self.root = Bucket(self, self._page(root))

    def _meta(self, number: int) -> tuple[int, int, int] | None:
        """Transaction, page size and root page of a header, None when it is not whole."""
        sizes = [4096, 8192, 16384, 32768, 65536, 1024, 2048] if number else [0]
        for size in sizes:  # of the second header the place follows from the page size
            start = size + _PAGE.size
            end = start + _META.size
            if end + 8 > len(self._data):
                continue
            magic, version, page_size, _, root, _, _, _, transaction = _META.unpack_from(self._data, start)
            (checksum,) = struct.unpack_from("<Q", self._data, end)
            whole = (magic, version) == (_MAGIC, _VERSION) and checksum == _fnv(self._data[start:end])
            if whole and 1024 <= page_size <= 1 << 16 and size in (0, page_size):
                return transaction, page_size, root
        return None

    def _page(self, number: int) -> _Page:
        start = number * self._page_size
        if number < 2 or start + self._page_size > len(self._data):
            raise self._damage(f"page {number} is not in the file")
        _, flags, count, overflow = _PAGE.unpack_from(self._data, start)
        end = start + (overflow + 1) * self._page_size
        if end > len(self._data):
            raise self._damage(f"page {number} goes beyond the file")
        return _Page(flags, count, start + _PAGE.size, end)

    def bucket_of(self, value: bytes) -> Bucket:
        """The bucket that a leaf's value describes."""
        if len(value) < _BUCKET.size:
            raise self._damage("a bucket without a header")
        root, _ = _BUCKET.unpack_from(value)
        if root:
            return Bucket(self, self._page(root))
        if len(value) < _BUCKET.size + _PAGE.size:
            raise self._damage("a bucket without a page")
        inner = object.__new__(Database)  # a small bucket lies whole in its value
        inner._data, inner._what, inner._page_size = value, self._what, self._page_size
        _, flags, count, _ = _PAGE.unpack_from(value, _BUCKET.size)
        return Bucket(inner, _Page(flags, count, _BUCKET.size + _PAGE.size, len(value)))

    def leaves(self, page: _Page, depth: int) -> Iterator[tuple[bytes, int, bytes]]:
        """Key, flags and value of everything below a page, in order."""
        if depth == 0:
            raise self._damage("its pages are nested too deep")
        if page.flags & _LEAF_PAGE:
            for number in range(page.count):
                at = self._element(page, number, _LEAF.size)
                flags, position, key_size, value_size = _LEAF.unpack_from(self._data, at)
                yield (
                    self._cut(page, at + position, key_size),
                    flags,
                    self._cut(page, at + position + key_size, value_size),
                )
        elif page.flags & _BRANCH_PAGE:
            for number in range(page.count):
                at = self._element(page, number, _BRANCH.size)
                _, _, child = _BRANCH.unpack_from(self._data, at)
                yield from self.leaves(self._page(child), depth - 1)
        else:
            raise self._damage(f"a page of kind {page.flags:#x} where keys should be")

    def _element(self, page: _Page, number: int, size: int) -> int:
        at = page.start + number * size
        if at + size > page.end:
            raise self._damage("a page has more elements than room")
        return at

    def _cut(self, page: _Page, start: int, size: int) -> bytes:
        if start < page.start or start + size > page.end:
            raise self._damage("an element lies outside of its page")
        return self._data[start : start + size]

    def _damage(self, words: str) -> BadInput:
        return BadInput(f"{self._what}: damaged: {words}")


def _fnv(data: bytes) -> int:
    """FNV-1a of 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
