"""Reading bbolt databases: what is in them, and what a damaged one does (nothing but say so)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.bolt import Bucket, Database
from oci.containerd_metadata import StoredImage, stored_images
from oci.errors import BadInput

PAGE = 4096
Tree: TypeAlias = Mapping[bytes, "bytes | Tree"]


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value


class Writer:
    """Writes a database as bbolt does: small buckets in their value, larger ones in pages of their own."""

    def __init__(self, *, per_leaf: int = 3, inline: int = 200) -> None:
        self.pages: dict[int, bytes] = {}
        self.per_leaf = per_leaf
        self.inline = inline

    def database(self, tree: Tree, *, transactions: tuple[int, int] = (7, 8), old: int = 0) -> bytes:
        root = self.bucket(tree)
        count = 4 + sum(len(page) // PAGE for page in self.pages.values())
        metas = [self.meta(root if t == max(transactions) else old, t, count) for t in transactions]
        out = bytearray(count * PAGE)
        for number, meta in enumerate(metas):
            out[number * PAGE : number * PAGE + len(meta)] = meta
        for number, page in self.pages.items():
            out[number * PAGE : number * PAGE + len(page)] = page
        return bytes(out)

    def meta(self, root: int, transaction: int, count: int) -> bytes:
        body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, 2, count, transaction)
        return struct.pack("<QHHI", 0, 4, 0, 0) + body + struct.pack("<Q", fnv(body))

    def bucket(self, tree: Tree) -> int:
        """The root page of a bucket that is written to pages."""
        items = [self.item(key, value) for key, value in sorted(tree.items())]
        groups = [items[n : n + self.per_leaf] for n in range(0, len(items), self.per_leaf)] or [[]]
        leaves = [
            (group[0][1] if group else b"", self.page(2, self.leaf(group), len(group))) for group in groups
        ]
        while len(leaves) > 1:
            first = leaves[: self.per_leaf]
            parent = self.page(1, self.branch(first), len(first))
            leaves = [(first[0][0], parent), *leaves[self.per_leaf :]]
        return leaves[0][1]

    def item(self, key: bytes, value: bytes | Tree) -> tuple[int, bytes, bytes]:
        if isinstance(value, bytes):
            return 0, key, value
        if all(isinstance(inner, bytes) for inner in value.values()):  # others are never kept in a value
            items = [self.item(name, inner) for name, inner in sorted(value.items())]
            body = self.leaf(items)
            if len(body) <= self.inline:
                header = struct.pack("<QQ", 0, 0) + struct.pack("<QHHI", 0, 2, len(items), 0)
                return 1, key, header + body
        return 1, key, struct.pack("<QQ", self.bucket(value), 0)

    def leaf(self, items: list[tuple[int, bytes, bytes]]) -> bytes:
        heads, tail = b"", b""
        for number, (flags, key, value) in enumerate(items):
            position = (len(items) - number) * 16 + len(tail)
            heads += struct.pack("<IIII", flags, position, len(key), len(value))
            tail += key + value
        return heads + tail

    def branch(self, children: list[tuple[bytes, int]]) -> bytes:
        heads, tail = b"", b""
        for number, (key, page) in enumerate(children):
            position = (len(children) - number) * 16 + len(tail)
            heads += struct.pack("<IIQ", position, len(key), page)
            tail += key
        return heads + tail

    def page(self, flags: int, body: bytes, count: int) -> int:
        number = 4 + sum(len(page) // PAGE for page in self.pages.values())
        overflow = (16 + len(body) - 1) // PAGE
        whole = struct.pack("<QHHI", number, flags, count, overflow) + body
        self.pages[number] = whole.ljust((overflow + 1) * PAGE, b"\0")
        return number


def plain(bucket: Bucket) -> dict[bytes, object]:
    found: dict[bytes, object] = dict(bucket.values())
    found.update({key: plain(inner) for key, inner in bucket.buckets()})
    return found


KEYS = st.binary(min_size=1, max_size=6)
TREES = st.recursive(
    st.dictionaries(KEYS, st.binary(max_size=40), max_size=5),
    lambda inner: st.dictionaries(KEYS, st.binary(max_size=6000) | inner, max_size=6),
    max_leaves=12,
)


@given(tree=TREES, per_leaf=st.integers(2, 4), inline=st.sampled_from([0, 60, 1000]))
def test_what_was_written_is_read(tree: Tree, per_leaf: int, inline: int) -> None:
    data = Writer(per_leaf=per_leaf, inline=inline).database(tree)
    assert plain(Database(data, what="w").root) == tree


def test_the_newest_whole_header_decides() -> None:
    data = bytearray(Writer().database({b"a": b"1"}, transactions=(9, 8)))
    assert plain(Database(bytes(data), what="w").root) == {b"a": b"1"}
    data[16 + 20] ^= 1  # the first header is not whole any more: the second's root is not a bucket
    with pytest.raises(BadInput, match=r"^w: damaged: page 0 is not in the file$"):
        Database(bytes(data), what="w")
    data[PAGE + 16 + 20] ^= 1
    with pytest.raises(BadInput, match=r"^w: not a bbolt database, or both of its headers are damaged$"):
        Database(bytes(data), what="w")


def test_a_page_that_leads_to_itself_is_damage_and_no_loop() -> None:
    writer = Writer()
    number = writer.page(1, struct.pack("<IIQ", 16, 0, 4), 1)
    assert number == 4
    data = writer.database({})
    meta = writer.meta(4, 99, 9)
    data = meta.ljust(PAGE, b"\0") + data[PAGE:]
    with pytest.raises(BadInput, match=r"^w: damaged: its pages are nested too deep$"):
        plain(Database(data, what="w").root)


TREE: Tree = {
    b"v1": {
        b"k8s.io": {
            b"images": {
                b"docker.io/library/a:1": {
                    b"createdat": b"x",
                    b"target": {
                        b"digest": b"sha256:" + b"1" * 64,
                        b"mediatype": b"application/vnd.oci.image.index.v1+json",
                        b"size": b"\xd0\x0f",
                    },
                }
            },
            b"containers": {},
        },
        b"default": {},
        b"version": b"\x08",
    }
}


def test_containerd_s_images_are_found() -> None:
    assert stored_images(Writer().database(TREE), what="w") == (
        StoredImage(
            namespace="k8s.io",
            name="docker.io/library/a:1",
            digest=f"sha256:{'1' * 64}",
            media_type="application/vnd.oci.image.index.v1+json",
            size=1000,
        ),
    )


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, r"^w: a bbolt database, but not containerd's"),
        ({b"v1": {b"n": {b"images": {b"x": {}}}}}, r"^w: image 'x' has no digest or no size$"),
        (
            {b"v1": {b"n": {b"images": {b"x": {b"target": {b"digest": b"sha256:" + b"1" * 64}}}}}},
            r"^w: image 'x' has no digest or no size$",
        ),
    ],
)
def test_what_is_not_containerd_s_is_refused(tree: Tree, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        stored_images(Writer().database(tree), what="w")


DATA = Writer(inline=0).database(TREE)


@given(places=st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), max_size=8))
def test_damage_anywhere_is_an_error_or_nothing(places: list[tuple[int, int]]) -> None:
    data = bytearray(DATA)
    for place, byte in places:
        data[place] = byte
    try:
        stored_images(bytes(data), what="w")
    except BadInput as failure:
        assert failure.message.startswith("w: ")


@given(end=st.integers(0, len(DATA)))
def test_a_file_that_is_cut_is_an_error_or_nothing(end: int) -> None:
    try:
        stored_images(DATA[:end], what="w")
    except BadInput as failure:
        assert failure.message.startswith("w: ")
