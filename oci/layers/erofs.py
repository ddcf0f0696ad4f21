"""Writes a layer's tree as an EROFS file system whose file contents stay in the tar.

The image holds metadata alone: superblock, inodes, extended attributes, directories, symlinks. Every file is
chunk-based and its chunks point into device 1, the uncompressed tar, whose file contents begin on 512-byte
blocks: so 512 is the block size here, and nothing is copied. Mounted as
`mount -t erofs -o device=TAR INDEX DIR`, from plain files since Linux 6.12.

The same tree gives the same bytes. Format: Linux, Documentation/filesystems/erofs.rst and the structures of
fs/erofs/erofs_fs.h; nothing here is newer than what 6.12 reads.

    0     1024       1152          1536
    zeros superblock device slot   inodes, each with its xattrs, then its chunk indexes or inline tail ...
                                   ... then whole blocks of directories and long symlinks
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from oci.errors import BadInput
from oci.layers import xattr
from oci.layers.entry import BLOCK, Entry, Kind, Limits, Segment, shown
from oci.layers.tar import TarReader
from oci.layers.tree import Node, Tree, implied_directories

_MAGIC = 0xE0F5E1E2
_SUPER_AT = 1024
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23s")
_SLOT_AT = _SUPER_AT + 128
_SLOT = struct.Struct("<64sII56s")
_UUID_FIELD = 12
_META_AT = 3 * BLOCK
_COMPAT = 0x1 | 0x2  # superblock checksum; mtime, not ctime, in inodes
_INCOMPAT = 0x4 | 0x8  # chunk-based files; device table

_COMPACT = struct.Struct("<HHHHIIIIHHI")  # 32 bytes: one mtime for all, 16-bit owners
_EXTENDED = struct.Struct("<HHHHQIIIIQII16s")  # 64 bytes
_PLAIN, _INLINE, _CHUNKS = 0 << 1, 2 << 1, 4 << 1  # data layout, beside bit 0: extended
_CHUNK_INDEXES = 0x20
_CHUNK_BITS = 31
_CHUNK = struct.Struct("<HHI")
_HOLE = _CHUNK.pack(0, 0, 0xFFFFFFFF)
_DEVICE = 1

_DIRENT = struct.Struct("<QHBB")
_DIRENT_TYPES = {
    int(Kind.FILE): 1,
    int(Kind.DIRECTORY): 2,
    int(Kind.CHARACTER): 3,
    int(Kind.BLOCK_DEVICE): 4,
    int(Kind.FIFO): 5,
    int(Kind.SYMLINK): 7,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSizes:
    """Bytes of a layer: its tar, its index, and the sum of its files as they read (holes included)."""

    tar: int
    index: int
    files: int


class IndexBuilder:
    """A layer's tar goes in as it streams by, the EROFS index comes out at the end.

    Errors are BadInput, from `receive` or `finish`, and final. `inodes`, `sizes` and `implied` are valid
    after `finish`.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._reader = TarReader(self._limits)
        self._tree = Tree(self._limits)
        self._files = 0
        self.inodes = 0
        self.sizes = LayerSizes(tar=0, index=0, files=0)
        self.implied: tuple[bytes, ...] = ()

    def receive(self, block: bytes | bytearray | memoryview) -> None:
        """The next bytes of the uncompressed tar; large pieces are best."""
        add = self._tree.add
        for entry in self._reader.receive(block):
            add(entry)

    def finish(self) -> bytes:
        """The whole index, a multiple of 512 bytes."""
        self._reader.finish()
        root = self._tree.finish()
        index, self.inodes, files = write_index(root, self._reader.received, self._limits)
        self.sizes = LayerSizes(tar=self._reader.received, index=len(index), files=files)
        self.implied = tuple(implied_directories(root))
        return index


def is_whole(index: bytes) -> bool:
    """Whether an index is, to the byte, as some version of Crisp has made it: its UUID is its own digest."""
    blank = bytearray(index)
    if len(blank) < _META_AT or len(blank) % BLOCK:
        return False
    checksum = struct.unpack_from("<I", blank, _SUPER_AT + 4)[0]
    struct.pack_into("<I", blank, _SUPER_AT + 4, 0)
    if checksum != _crc32c(bytes(blank[_SUPER_AT : _SUPER_AT + BLOCK])):
        return False
    uuid = _SUPER.unpack_from(blank, _SUPER_AT)[_UUID_FIELD]
    blank[_SUPER_AT : _SLOT_AT + _SLOT.size] = bytes(_SUPER.size + _SLOT.size)
    return bool(uuid == _identity(blank))


def _identity(image: bytearray) -> bytes:
    """The UUID of an image whose superblock and device slot are not written yet."""
    return hashlib.sha256(image).digest()[:16]


class _Inode:
    """One inode's place and shape in the image; `at` is its byte offset, `at / 32` its number."""

    __slots__ = ("at", "chunks", "data", "extended", "node", "parent", "plain_at", "size", "tail", "xattrs")

    def __init__(self, node: Node, parent: Node, xattrs: bytes, *, extended: bool) -> None:
        self.node = node
        self.parent = parent
        self.xattrs = xattrs
        self.extended = extended
        self.at = 0
        self.size = 0
        self.chunks = b""
        self.data: list[list[bytes]] | bytes = b""  # names by directory block, or a symlink's target
        self.tail = 0  # bytes of `data` that stand behind the inode
        self.plain_at = 0  # byte offset of its whole blocks

    @property
    def head(self) -> int:
        return (64 if self.extended else 32) + len(self.xattrs)


def write_index(root: Node, tar_size: int, limits: Limits | None = None) -> tuple[bytes, int, int]:
    """The image of `root` (from Tree.finish) over a tar of `tar_size` bytes: (image, inodes, file bytes)."""
    writer = _Writer(tar_size, limits or Limits())
    return writer.write(root)


class _Writer:
    def __init__(self, tar_size: int, limits: Limits) -> None:
        self._tar_blocks = -(-tar_size // BLOCK)
        if self._tar_blocks >= 0xFFFFFFFF:
            raise BadInput(
                f"layer: a tar of {tar_size} bytes is too large for 32-bit block addresses (2 TiB)"
            )
        self._chunks_left = limits.chunks
        self._inodes: list[_Inode] = []
        self._places: dict[Node, _Inode] = {}
        self._at = _META_AT
        self._gap = (0, 0)
        self._epoch = (0, 0)
        self._files = 0

    def write(self, root: Node) -> tuple[bytes, int, int]:
        """Lay out, then fill in: directories need the numbers of what they name."""
        order = _in_order(root)
        # The commonest mtime goes into the superblock and half the bytes of those inodes are saved: many
        # images are built with one time for everything.
        times = Counter((e.seconds, e.nanoseconds) for e in (node.entry for _, node in order))
        best = max(times.values())
        self._epoch = min(time for time, count in times.items() if count == best)
        for parent, node in order:
            self._lay_out(node, parent)
        end = self._place_blocks()
        image = bytearray(end)
        for inode in self._inodes:
            self._fill(image, inode)
        self._superblock(image, self._places[root].at // 32, _identity(image))
        return bytes(image), len(self._inodes), self._files

    def _lay_out(self, node: Node, parent: Node) -> None:
        if node in self._places:  # another name of it
            return
        entry = node.entry
        xattrs = xattr.inline(entry, node.marks())
        size = len(entry.target) if entry.kind is Kind.SYMLINK else entry.size
        extended = (
            (entry.seconds, entry.nanoseconds) != self._epoch
            or entry.uid > 0xFFFF
            or entry.gid > 0xFFFF
            or node.links > 0xFFFF
            or size > 0xFFFFFFFF
        )
        inode = _Inode(node, parent, xattrs, extended=extended)
        self._places[node] = inode
        self._inodes.append(inode)
        inode.size = size
        if entry.kind is Kind.DIRECTORY:
            inode.data, inode.size = _directory_blocks(node)
            inode.tail = inode.size % BLOCK
        elif entry.kind is Kind.SYMLINK:
            inode.data = entry.target
            inode.tail = size % BLOCK
        elif entry.kind is Kind.FILE and size:
            self._files += size
            inode.chunks = self._chunks(entry)
        self._place(inode)

    def _place(self, inode: _Inode) -> None:
        """Give it an offset: 32-byte slots in order, except that an inline tail must not cross a block."""
        head = inode.head
        if inode.tail:
            at = self._at
            if (at + head) % BLOCK + inode.tail > BLOCK:
                at = -(-(_up(at + head, BLOCK) - head) // 32) * 32
            if (at + head) % BLOCK + inode.tail <= BLOCK:
                if at - self._at > self._gap[1] - self._gap[0]:
                    self._gap = (self._at, at)
                inode.at = at
                self._at = _up(at + head + inode.tail, 32)
                return
            inode.tail = 0  # its odd length of attributes leaves no room in any block: then whole blocks
        need = _up(head, 8) + len(inode.chunks) - 1 if inode.chunks else head
        start, stop = self._gap
        if stop - start >= need:  # what a tail's alignment left free
            inode.at = start
            self._gap = (_up(start + need, 32), stop)
        else:
            inode.at = self._at
            self._at = _up(self._at + need, 32)

    def _place_blocks(self) -> int:
        at = _up(self._at, BLOCK)
        for inode in self._inodes:
            whole = inode.size - inode.tail if inode.data else 0
            if whole:
                inode.plain_at = at
                at = _up(at + whole, BLOCK)
        return at

    def _fill(self, image: bytearray, inode: _Inode) -> None:
        node, entry, at = inode.node, inode.node.entry, inode.at
        layout, detail = _PLAIN, 0
        if inode.chunks:
            layout = _CHUNKS
            detail = _CHUNK_INDEXES | inode.chunks[0]
        elif inode.data:
            layout = _INLINE if inode.tail else _PLAIN
            detail = inode.plain_at // BLOCK if inode.plain_at else 0
        elif entry.kind is Kind.CHARACTER or entry.kind is Kind.BLOCK_DEVICE:
            detail = (entry.minor & 0xFF) | (entry.major << 8) | ((entry.minor & ~0xFF) << 12)
        count = xattr.count(inode.xattrs)
        mode = entry.kind | entry.mode
        number = at // 32 & 0xFFFFFFFF
        if inode.extended:
            _EXTENDED.pack_into(
                image, at, layout | 1, count, mode, 0, inode.size, detail, number, entry.uid, entry.gid,
                entry.seconds & 0xFFFFFFFFFFFFFFFF, entry.nanoseconds, node.links, b"",
            )  # fmt: skip
        else:
            _COMPACT.pack_into(
                image, at, layout, count, mode, node.links, inode.size, 0, detail, number,
                entry.uid, entry.gid, 0,
            )  # fmt: skip
        at += inode.head
        if inode.xattrs:
            image[at - len(inode.xattrs) : at] = inode.xattrs
        if inode.chunks:
            at = _up(at, 8)
            image[at : at + len(inode.chunks) - 1] = inode.chunks[1:]
        elif inode.data:
            data = inode.data if isinstance(inode.data, bytes) else self._dirents(inode, inode.data)
            whole = inode.size - inode.tail
            image[inode.plain_at : inode.plain_at + whole] = data[:whole]
            image[at : at + inode.tail] = data[whole:]

    def _chunks(self, entry: Entry) -> bytes:
        """The chunk indexes of a file, behind one byte: log2 of the chunk's size in blocks.

        Chunks are as large as the file's holes allow, so a file without any has one.
        """
        runs: Sequence[Segment] = entry.sparse if entry.sparse is not None else ()
        if entry.sparse is None:
            bits = min(_CHUNK_BITS, ((entry.size - 1) // BLOCK).bit_length())
            runs = (Segment(0, entry.size, entry.offset),)
        else:
            edges = entry.size - 1
            bits = min(_CHUNK_BITS, (edges // BLOCK).bit_length())
            for run in runs:
                for edge in (run.start, run.start + run.length):
                    if edge and edge != entry.size:
                        bits = min(bits, ((edge & -edge) // BLOCK).bit_length() - 1)
        chunk = BLOCK << bits
        count = -(-entry.size // chunk)
        self._chunks_left -= count
        if self._chunks_left < 0:
            raise BadInput(f"layer: entry {shown(entry.path)!r}: its holes need too many chunks ({count})")
        if entry.sparse is None and count == 1:
            return bytes((bits,)) + _CHUNK.pack(0, _DEVICE, entry.offset // BLOCK)
        out = bytearray((bits,))
        position = 0
        for run in runs:
            first = run.start // chunk
            out += _HOLE * (first - position)
            position = -(-(run.start + run.length) // chunk)
            block = run.source // BLOCK
            step = chunk // BLOCK
            out += b"".join(
                _CHUNK.pack(0, _DEVICE, block + step * number) for number in range(position - first)
            )
        out += _HOLE * (count - position)
        return bytes(out)

    def _dirents(self, inode: _Inode, blocks: list[list[bytes]]) -> bytes:
        """A directory's blocks: sorted entries from the front, their names behind them."""
        children = inode.node.entries()
        places = self._places
        out = bytearray()
        for names in blocks:
            start = len(out)
            name_at = _DIRENT.size * len(names)
            for name in names:
                child = children.get(name)
                if child is None:
                    child = inode.node if name == b"." else inode.parent
                out += _DIRENT.pack(places[child].at // 32, name_at, _DIRENT_TYPES[child.entry.kind], 0)
                name_at += len(name)
            out += b"".join(names)
            if names is not blocks[-1]:
                out += bytes(BLOCK - (len(out) - start))
        return bytes(out)

    def _superblock(self, image: bytearray, root: int, uuid: bytes) -> None:
        seconds, nanoseconds = self._epoch
        fields = (
            _COMPAT, BLOCK.bit_length() - 1, 0, root, len(self._inodes),
            seconds & 0xFFFFFFFFFFFFFFFF, nanoseconds, len(image) // BLOCK, 0, 0, uuid, b"", _INCOMPAT,
            0, 1, _SLOT_AT // _SLOT.size, 0, 0, 0, 0, 0, b"",
        )  # fmt: skip
        _SUPER.pack_into(image, _SUPER_AT, _MAGIC, 0, *fields)
        _SLOT.pack_into(image, _SLOT_AT, b"", self._tar_blocks, 0, b"")
        checksum = _crc32c(bytes(image[_SUPER_AT : _SUPER_AT + BLOCK]))
        struct.pack_into("<I", image, _SUPER_AT + 4, checksum)


def _in_order(root: Node) -> list[tuple[Node, Node]]:
    """(parent, node) for every name: a directory, then all it names, then its first subdirectory ...

    What one `ls -l` reads stands together.
    """
    order = [(root, root)]
    stack = [root]
    while stack:
        directory = stack.pop()
        children = directory.entries()
        named = [children[name] for name in sorted(children)]
        order += [(directory, child) for child in named]
        stack += [child for child in reversed(named) if child.children]
    return order


def _directory_blocks(node: Node) -> tuple[list[list[bytes]], int]:
    """Names of a directory by block, and the directory's size. Sorted as bytes, `.` and `..` among them."""
    blocks: list[list[bytes]] = []
    used = BLOCK
    for name in sorted((*node.entries(), b".", b"..")):
        need = _DIRENT.size + len(name)
        if used + need > BLOCK:
            current: list[bytes] = []
            blocks.append(current)
            used = 0
        current.append(name)
        used += need
    return blocks, BLOCK * (len(blocks) - 1) + used


def _up(value: int, to: int) -> int:
    return -(-value // to) * to


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


def _crc32c(data: bytes) -> int:
    """CRC-32C from all ones, without the usual inversion at the end, as the kernel computes it here."""
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _CRC[(value ^ byte) & 0xFF]
    return value
