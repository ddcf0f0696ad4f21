"""The EROFS index: its bytes read back by a reader of the format written for the test."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci.errors import BadInput
from oci.layers.entry import Entry, Kind, Limits, Segment
from oci.layers.erofs import IndexBuilder, LayerSizes, is_whole, write_index
from oci.layers.tree import Tree
from tests.layers.archives import END, directory, member, sparse_pax
from tests.layers.seeds import SEEDS


@dataclass
class Inode:
    at: int
    layout: int
    extended: bool
    mode: int
    links: int
    size: int
    detail: int
    uid: int
    gid: int
    time: tuple[int, int]
    body: int  # where what follows inode and attributes begins
    xattrs: bytes


class Image:
    """Just enough of EROFS to look a name up; every rule that the kernel relies on is asserted."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        (self.magic, self.checksum, self.compat, self.bits, _, self.root, self.inos, self.seconds, self.nanos,
         self.blocks, meta, _, self.uuid, _, self.incompat, _, devices, slot) = struct.unpack_from(
            "<IIIBBHQQIIII16s16sIHHH", data, 1024)  # fmt: skip
        assert (self.magic, self.bits, meta, devices) == (0xE0F5E1E2, 9, 0, 1)
        assert len(data) == self.blocks * 512
        self.tar_blocks, self.mapped = struct.unpack_from("<II", data, slot * 128 + 64)

    def inode(self, number: int) -> Inode:
        at = number * 32
        form, count, mode = struct.unpack_from("<HHH", self.data, at)
        if form & 1:
            size, detail, ino, uid, gid, seconds, nanos, links = struct.unpack_from(
                "<QIIIIQII", self.data, at + 8
            )
            time = (seconds - (1 << 64) if seconds >> 63 else seconds, nanos)
        else:
            links, size, _, detail, ino, uid, gid = struct.unpack_from("<HIIIIHH", self.data, at + 6)
            time = (self.seconds, self.nanos)
        assert ino == number
        start = at + (64 if form & 1 else 32)
        body = start + (12 + 4 * (count - 1) if count else 0)
        return Inode(
            at,
            form >> 1,
            bool(form & 1),
            mode,
            links,
            size,
            detail,
            uid,
            gid,
            time,
            body,
            self.data[start:body],
        )

    def content(self, inode: Inode) -> bytes:
        tail = inode.size % 512 if inode.layout == 2 else 0
        if tail:
            assert inode.body // 512 == (inode.body + tail - 1) // 512, "an inline tail crosses a block"
        start = inode.detail * 512
        return self.data[start : start + inode.size - tail] + self.data[inode.body : inode.body + tail]

    def chunks(self, inode: Inode) -> tuple[int, list[tuple[int, int]]]:
        """log2 of the chunk size in blocks, and (device, block) of each chunk."""
        assert inode.layout == 4
        assert inode.detail & ~0x1F == 0x20
        bits = inode.detail & 0x1F
        start = -(-inode.body // 8) * 8
        count = -(-inode.size // (512 << bits))
        entries = [struct.unpack_from("<HHI", self.data, start + 8 * i) for i in range(count)]
        return bits, [(device, block) for _, device, block in entries]

    def names(self, inode: Inode) -> dict[bytes, tuple[int, int]]:
        data, found, last = self.content(inode), {}, b""
        for at in range(0, inode.size, 512):
            block = data[at : at + 512]
            count = struct.unpack_from("<QH", block)[1] // 12
            dirents = [struct.unpack_from("<QHB", block, 12 * i) for i in range(count)]
            ends = [offset for _, offset, _ in dirents[1:]] + [len(block)]
            for (number, offset, kind), end in zip(dirents, ends, strict=True):
                name = block[offset:end].rstrip(b"\0")
                assert name > last, "names are not sorted"
                last = name
                found[name] = (number, kind)
        return found

    def look(self, path: bytes) -> Inode:
        inode = self.inode(self.root)
        for part in path.split(b"/") if path else ():
            inode = self.inode(self.names(inode)[part][0])
        return inode


def built(tar: bytes) -> Image:
    builder = IndexBuilder()
    builder.receive(tar)
    return Image(builder.finish())


def test_the_same_tar_gives_the_same_bytes_whatever_the_pieces() -> None:
    for make in SEEDS.values():
        tar = make()
        images = set()
        for step in (len(tar), 4096, 1000):
            builder = IndexBuilder()
            for at in range(0, len(tar), step):
                builder.receive(tar[at : at + step])
            images.add(builder.finish())
        assert len(images) == 1


def test_the_superblock_says_what_is_needed_and_has_its_checksum() -> None:
    tar = SEEDS["plain"]()
    image = built(tar)
    assert (image.compat, image.incompat, image.tar_blocks, image.mapped) == (3, 12, len(tar) // 512, 0)
    value = 0xFFFFFFFF
    for byte in image.data[1024:1028] + bytes(4) + image.data[1032:1536]:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    assert image.checksum == value
    blank = bytearray(image.data)
    blank[1024:1536] = bytes(512)
    assert image.uuid == hashlib.sha256(blank).digest()[:16]


def test_sizes_inodes_and_implied_directories_are_told() -> None:
    tar = member(b"a/b", b"x" * 700) + member(b"a/c", flag=b"1", link=b"a/b") + member(b"d", b"y") + END
    builder = IndexBuilder()
    builder.receive(tar)
    index = builder.finish()
    assert builder.sizes == LayerSizes(tar=len(tar), index=len(index), files=701)
    assert (builder.inodes, builder.implied) == (4, (b"", b"a"))


def test_an_empty_layer_is_a_root_alone() -> None:
    image = built(END)
    root = image.look(b"")
    assert (root.mode, root.links, root.uid, root.gid, image.inos) == (0o40755, 2, 0, 0, 1)
    assert image.names(root) == {b".": (image.root, 2), b"..": (image.root, 2)}


def test_a_file_is_one_chunk_that_points_into_the_tar() -> None:
    tar = member(b"small", b"x") + member(b"large", b"y" * 100_000) + member(b"empty") + END
    image = built(tar)
    assert image.chunks(image.look(b"small")) == (0, [(1, 1)])
    assert image.chunks(image.look(b"large")) == (8, [(1, 3)])
    empty = image.look(b"empty")
    assert (empty.layout, empty.size) == (0, 0)


def test_holes_are_null_chunks_and_chunks_as_large_as_the_map_allows() -> None:
    runs = [(0, b"a" * 2048), (8192, b"b" * 4096)]
    image = built(sparse_pax(b"s", runs, 20_000, "0.1") + END)
    null = (0, 0xFFFFFFFF)
    assert image.chunks(image.look(b"s")) == (
        2, [(1, 3), null, null, null, (1, 7), (1, 11), null, null, null, null],
    )  # fmt: skip
    image = built(sparse_pax(b"h", [], 1 << 40, "1.0") + END)
    assert image.chunks(image.look(b"h")) == (31, [null])


def test_a_map_that_needs_too_many_chunks_is_refused() -> None:
    tar = sparse_pax(b"s", [(512, b"a" * 512)], 1 << 50, "1.0") + END
    builder = IndexBuilder()
    builder.receive(tar)
    with pytest.raises(BadInput, match="entry 's': its holes need too many chunks"):
        builder.finish()


def test_files_beyond_the_largest_chunk_have_several() -> None:
    tree = Tree()
    tree.add(Entry(b"f", Kind.FILE, 0o644, size=(1 << 40) + 1, offset=512))
    image = Image(write_index(tree.finish(), (1 << 40) + 1024)[0])
    assert image.chunks(image.look(b"f")) == (31, [(1, 1), (1, 1 + (1 << 31))])


def test_a_tar_beyond_32_bit_block_addresses_is_refused() -> None:
    with pytest.raises(BadInput, match="2 TiB"):
        write_index(Tree().finish(), 1 << 41)


def test_inodes_are_small_where_they_can_be() -> None:
    tar = b"".join(
        (
            directory(b"./", mtime=9),
            member(b"common", b"1", mtime=9),
            member(b"other-time", b"1", mtime=10),
            member(b"large-owner", b"1", mtime=9, uid=70000),
            END,
        )
    )
    image = built(tar)
    found = {name: image.look(name).extended for name in (b"", b"common", b"other-time", b"large-owner")}
    assert found == {b"": False, b"common": False, b"other-time": True, b"large-owner": True}
    assert image.look(b"common").time == (9, 0)
    assert (image.look(b"large-owner").uid, image.look(b"other-time").time) == (70000, (10, 0))


def test_negative_times_and_nanoseconds_are_kept() -> None:
    image = built(member(b"f", mtime=-2, nanoseconds=5) + member(b"g") + member(b"h") + END)
    assert image.look(b"f").time == (-2, 5)


def test_hard_links_share_a_number_and_are_counted() -> None:
    image = built(member(b"d/a", b"1") + member(b"b", flag=b"1", link=b"d/a") + END)
    assert image.look(b"d/a").at == image.look(b"b").at
    assert image.look(b"b").links == 2


@pytest.mark.parametrize(
    ("device", "number"), [((1, 3), 0x103), ((8, 300), 0x10082C), ((4095, 0xFFFFF), 0xFFFFFFFF)]
)
def test_device_numbers_are_encoded_as_the_kernel_does(device: tuple[int, int], number: int) -> None:
    image = built(member(b"n", flag=b"3", device=device) + END)
    assert image.look(b"n").detail == number


@pytest.mark.parametrize("length", [1, 400, 448, 449, 511, 512, 513, 1024, 4000, 4095])
@pytest.mark.parametrize("value", [0, 1, 100, 471])
def test_symlinks_of_any_length_are_kept_with_any_attributes(length: int, value: int) -> None:
    xattrs = [(b"trusted.x", b"v" * value)] if value else []
    image = built(member(b"l", flag=b"2", link=b"t" * length, xattrs=xattrs) + END)
    inode = image.look(b"l")
    assert (image.content(inode), inode.mode, inode.size) == (b"t" * length, 0o120777, length)


def test_attributes_stand_behind_the_inode() -> None:
    pairs = [(b"user.a", b"12"), (b"trusted.bc", b""), (b"security.selinux", b"s" * 5), (b"system.x", b"no"),
             (b"trusted.overlay.redirect", b"/etc"), (b"lustre.x", b"no"), (b"user.", b"no")]  # fmt: skip
    image = built(member(b"f", b"x", xattrs=pairs) + END)
    assert image.look(b"f").xattrs == bytes(12) + b"".join(
        (
            b"\x07\x06\x05\x00selinuxsssss",
            b"\x02\x04\x00\x00bc\0\0",
            b"\x01\x01\x02\x00a12\0",
        )
    )


def test_an_opaque_directory_has_overlayfss_mark() -> None:
    image = built(directory(b"d") + member(b"d/.wh..wh..opq") + END)
    assert image.look(b"d").xattrs == bytes(12) + b"\x0e\x04\x01\x00overlay.opaquey\0"


@pytest.mark.parametrize("whiteout", [member(b"d/.wh.x"), member(b"d/x", flag=b"3")])
def test_a_directory_with_whiteouts_says_so_to_overlayfs(whiteout: bytes) -> None:
    image = built(directory(b"d") + whiteout + directory(b"e") + END)
    assert image.look(b"d").xattrs == bytes(12) + b"\x0e\x04\x00\x00overlay.origin\0\0"
    assert (image.look(b"d/x").mode & 0o170000, image.look(b"d/x").detail) == (0o020000, 0)
    assert image.look(b"e").xattrs == b""


def test_attributes_of_symlinks_and_devices_are_those_they_can_have() -> None:
    pairs = [(b"user.a", b"1"), (b"trusted.a", b"2")]
    image = built(member(b"n", flag=b"6", xattrs=pairs) + END)
    assert image.look(b"n").xattrs == bytes(12) + b"\x01\x04\x01\x00a2\0\0"


ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 7, i) for tag, i in ((1, ~0 & 0xFFFFFFFF), (2, 5), (4, 0), (16, 0), (32, 0))
)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (b"user.a", b"v" * 65536, "attribute 'user.a' is too large"),
        (b"user." + b"n" * 251, b"", "is too large"),
        (b"security.capability", b"", "is not a file capability"),
        (b"security.capability", bytes(20), "is not a file capability"),
        (b"security.capability", b"\1\0\0\3" + bytes(16) + b"\xff" * 4, "is not a file capability"),
        (b"system.posix_acl_access", b"", "is not an ACL"),
        (b"system.posix_acl_access", ACL[:-1], "is not an ACL"),
        (b"system.posix_acl_access", ACL[:4] + ACL[12:], "is not an ACL"),
        (b"system.posix_acl_access", ACL.replace(b"\x10\0\7\0", b"\x08\0\7\0"), "is not an ACL"),
    ],
)
def test_attributes_that_setxattr_would_refuse_are_refused(name: bytes, value: bytes, words: str) -> None:
    builder = IndexBuilder()
    with pytest.raises(BadInput) as caught:
        builder.receive(member(b"f", xattrs=[(name, value)]) + END)
        builder.finish()
    assert str(caught.value).startswith("layer: entry 'f': ")
    assert words in str(caught.value)


def test_attributes_altogether_must_fit_an_inode() -> None:
    builder = IndexBuilder()
    builder.receive(member(b"f", xattrs=[(b"user.%d" % i, b"v" * 65_000) for i in range(5)]) + END)
    with pytest.raises(BadInput, match="its attributes take"):
        builder.finish()


def test_an_acl_and_a_capability_that_are_right_are_kept() -> None:
    capability = struct.pack("<IIIII", 0x02000001, 1024, 0, 0, 0)
    pairs = [(b"system.posix_acl_access", ACL), (b"security.capability", capability)]
    image = built(member(b"f", mode=0o777, xattrs=pairs) + END)
    assert image.look(b"f").xattrs == (
        bytes(12) + b"\x0a\x06\x14\x00capability" + capability + b"\0\0" + b"\x00\x02\x2c\x00" + ACL
    )


def access(owner: int, group: int, others: int, mask: int | None = None, user: int | None = None) -> bytes:
    """An ACL that says so much, with one named user if any."""
    parts = [(1, owner), (2, user), (4, group), (16, mask), (32, others)]
    named = {2: 1000}
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, share, named.get(tag, 0xFFFFFFFF))
        for tag, share in parts
        if share is not None
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (access(7, 7, 7, mask=7, user=4), access(6, 7, 1, mask=5, user=4)),
        (access(0, 4, 0, mask=0), access(6, 4, 1, mask=5)),
        (access(7, 7, 7), b""),
    ],
)
def test_the_mode_decides_what_an_access_acl_says_as_chmod_does(value: bytes, expected: bytes) -> None:
    image = built(member(b"f", mode=0o4651, xattrs=[(b"system.posix_acl_access", value)]) + END)
    found = image.look(b"f")
    assert (found.mode & 0o7777, found.xattrs[16:]) == (0o4651, expected)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.binary(min_size=1, max_size=255).filter(lambda n: n not in (b".", b"..")), max_size=60),
    value=st.integers(0, 600),
)
def test_directories_of_any_names_can_be_searched(names: list[bytes], value: int) -> None:
    clean = {n.replace(b"/", b"_").replace(b"\0", b"_") for n in names} - {b".", b".."}
    clean = {n for n in clean if not n.startswith(b".wh.")}
    xattrs = ((b"user.v", b"x" * value),) if value else ()
    tree = Tree()
    tree.add(Entry(b"d", Kind.DIRECTORY, xattrs=xattrs))
    for name in clean:
        tree.add(Entry(b"d/" + name, Kind.FIFO))
    image = Image(write_index(tree.finish(), 512)[0])
    assert {*image.names(image.look(b"d"))} == clean | {b".", b".."}


def test_sparse_runs_reach_the_file_block_by_block() -> None:
    tree = Tree(Limits())
    runs = (Segment(512, 512, 1024), Segment(1536, 100, 1536))
    tree.add(Entry(b"s", Kind.FILE, 0o644, size=1636, offset=1024, sparse=runs))
    image = Image(write_index(tree.finish(), 4096)[0])
    null = (0, 0xFFFFFFFF)
    assert image.chunks(image.look(b"s")) == (0, [null, (1, 2), null, (1, 3)])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_index_says_itself_whether_it_is_whole(seed: str) -> None:
    builder = IndexBuilder()
    builder.receive(SEEDS[seed]())
    index = builder.finish()
    assert is_whole(index)
    assert not is_whole(index[:-512])
    assert not is_whole(index[:512])
    assert not is_whole(b"")
    for at in {*range(0, len(index), 7), *range(1024, 1280)}:
        assert not is_whole(index[:at] + bytes([index[at] ^ 1]) + index[at + 1 :])
