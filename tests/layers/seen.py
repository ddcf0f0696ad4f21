"""A tree as values: seen through a mount or in a directory, or as the index writer's tree means it."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from oci.layers.entry import Kind
from oci.layers.erofs import IndexBuilder
from oci.layers.tree import Node
from oci.layers.xattr import kept
from shim.kernel import layered, mount

SMALL = 1 << 20
_SAMPLE = 4096
# At each mount; and when a daemon beside these tests asks whether the kernel takes a file, an empty one.
_USUAL = ("mounted with root inode", "cannot find valid erofs superblock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One name. `same` is the first of the names, sorted, of its inode; `content` a digest, or the target."""

    mode: int
    uid: int
    gid: int
    mtime: int  # nanoseconds
    size: int = 0
    links: int = 1
    same: bytes = b""
    device: tuple[int, int] = (0, 0)
    content: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


Tree = dict[bytes, Seen]


def look(root: Path | bytes) -> Tree:
    """Everything below `root`, read to the last byte (files over 1 MiB: at their ends and in between)."""
    top = os.fsencode(root)
    found: Tree = {}
    stack = [b""]
    while stack:
        path = stack.pop()
        full = top + b"/" + path if path else top
        state = os.lstat(full)
        kind = stat.S_IFMT(state.st_mode)
        content, size = b"", 0
        if kind == stat.S_IFDIR:
            stack += [path + b"/" + name if path else name for name in os.listdir(full)]  # noqa: PTH208 - names as bytes
        elif kind == stat.S_IFLNK:
            content = os.readlink(full)  # noqa: PTH115 - as bytes
            size = len(content)
        elif kind == stat.S_IFREG:
            size = state.st_size
            descriptor = os.open(full, os.O_RDONLY | os.O_CLOEXEC)
            content = digest(size, lambda at, count, fd=descriptor: os.pread(fd, count, at))
            os.close(descriptor)
        names = sorted(os.fsencode(name) for name in os.listxattr(full, follow_symlinks=False))
        found[path] = Seen(
            mode=state.st_mode,
            uid=state.st_uid,
            gid=state.st_gid,
            mtime=state.st_mtime_ns,
            size=size,
            links=state.st_nlink,
            device=(os.major(state.st_rdev), os.minor(state.st_rdev)),
            content=content,
            xattrs=tuple((name, os.getxattr(full, name, follow_symlinks=False)) for name in names),
            same=b"%d:%d" % (state.st_dev, state.st_ino),
        )
    return _linked(found)


def _linked(found: Tree) -> Tree:
    """With each inode known by the first of its names."""
    first: dict[bytes, bytes] = {}
    for path in sorted(found):
        name = first.setdefault(found[path].same, path)
        found[path] = replace(found[path], same=name)
    return found


def meant(root: Node, tar: bytes) -> Tree:
    """What a mount of the index of `root` must show, taken from the tree and the tar itself."""
    found: Tree = {}
    stack = [(b"", root)]
    while stack:
        path, node = stack.pop()
        entry = node.entry
        content, size = b"", 0
        if node.children is not None:
            stack += [(path + b"/" + name if path else name, child) for name, child in node.children.items()]
        elif entry.kind is Kind.SYMLINK:
            content, size = entry.target, len(entry.target)
        elif entry.kind is Kind.FILE:
            runs = entry.sparse if entry.sparse is not None else ((0, entry.size, entry.offset),)
            size = entry.size

            def read(at: int, count: int, runs=runs, size=size) -> bytes:  # type: ignore[no-untyped-def]
                out = bytearray(min(count, size - at))
                for start, length, source in runs:
                    low, high = max(start, at), min(start + length, at + len(out))
                    if low < high:
                        out[low - at : high - at] = tar[source + low - start : source + high - start]
                return bytes(out)

            content = digest(size, read)
        xattrs = {k: _as_kernel_says(k, v) for k, v in kept(entry)}
        xattrs.update(node.marks())
        found[path] = Seen(
            mode=entry.kind | entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime=entry.seconds * 1_000_000_000 + entry.nanoseconds,
            size=size,
            links=node.links,
            device=(entry.major, entry.minor),
            content=content,
            xattrs=tuple(sorted(xattrs.items())),
            same=b"%d" % id(node),
        )
    return _linked(found)


def _as_kernel_says(name: bytes, value: bytes) -> bytes:
    """ACLs and capabilities are rewritten on their way out: the id of nobody is -1, root's is left out."""
    if name == b"security.capability" and value[20:] == bytes(4):
        return bytes((value[0], 0, 0, 2)) + value[4:20]
    if not name.startswith(b"system.posix_acl_"):
        return value
    out = value[:4]
    for tag, permissions, identity in struct.iter_unpack("<HHI", value[4:]):
        out += struct.pack("<HHI", tag, permissions, identity if tag in (2, 8) else 0xFFFFFFFF)
    return out


def digest(size: int, read) -> bytes:  # type: ignore[no-untyped-def]
    """Of a file's bytes, `read(offset, count)`: all of a small one, 64 places of a large one."""
    summed = hashlib.sha256(b"%d" % size)
    if size <= SMALL:
        summed.update(read(0, size + 1) if size else b"")
    else:
        for place in range(64):
            summed.update(read((size - _SAMPLE) * place // 63, _SAMPLE))
    return summed.digest()


def index_of(tar: bytes, piece: int = 1 << 20) -> tuple[bytes, IndexBuilder]:
    """The index of an archive, fed in pieces."""
    builder = IndexBuilder()
    for at in range(0, len(tar), piece):
        builder.receive(tar[at : at + piece])
    return builder.finish(), builder


@contextmanager
def mounted(tar: Path, index: bytes) -> Iterator[Path]:
    """The index, mounted over its tar; both files and the mount are gone afterwards, the tar stays."""
    image, target = tar.with_suffix(".erofs"), tar.with_suffix(".mount")
    image.write_bytes(index)
    target.mkdir()
    try:
        layered.mount_erofs(target, image, device=tar)
        try:
            yield target
        finally:
            mount.unmount(target)
    finally:
        target.rmdir()
        image.unlink()


class KernelLog:
    """What the kernel says about EROFS or overlayfs from now on, but for its line at each mount."""

    def __init__(self) -> None:
        self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def complaints(self) -> list[str]:
        """New lines, oldest first."""
        lines = []
        while True:
            try:
                text = os.read(self._descriptor, 8192).decode("utf-8", "replace")
            except BlockingIOError:
                return lines
            except BrokenPipeError:  # overtaken by the ring; read on from what is left
                continue
            line = text.partition(";")[2].partition("\n")[0]
            bad = ("erofs" in line or "overlayfs" in line) and not any(words in line for words in _USUAL)
            if bad or "WARNING" in line or "BUG:" in line:
                lines.append(line)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)
