"""The directory form of a layer as an ordered list of operations, for kernels that cannot mount the index.

Decides, and touches nothing: a worker carries them out inside the layer's directory. They come from the same
tree as the index, so both forms show the same files. The order makes each step possible and final: what an
operation names is made by the ones before it, no path in it leads through a symlink or leaves the directory,
no path occurs twice as something new, and what would be disturbed by later steps (the times and modes of
directories) comes last, the deepest first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from oci.layers import xattr
from oci.layers.entry import Entry, Kind, Segment
from oci.layers.tree import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory:
    """mkdir `path`, empty and mode 0700 for now; `Finish` gives it what it is to have. Never the root."""

    path: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """A regular file of `size` bytes made of runs of the tar; where there is none it is a hole."""

    path: bytes
    size: int
    runs: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSymlink:
    """A symlink with this target, verbatim."""

    path: bytes
    target: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeNode:
    """A device or a fifo, `kind` being its type bits for mknod(2). A whiteout is the character device 0/0."""

    path: bytes
    kind: Kind
    major: int
    minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeLink:
    """A further name `path` of the inode that an operation before made as `target`."""

    path: bytes
    target: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Owner, then mode (not of symlinks), attributes, times of `path`, none of it through a symlink.

    `xattrs` hold overlayfs's marks too (trusted.overlay.*), which take CAP_SYS_ADMIN. Root is `b""`.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    seconds: int
    nanoseconds: int
    xattrs: tuple[tuple[bytes, bytes], ...]


Operation = MakeDirectory | WriteFile | MakeSymlink | MakeNode | MakeLink | Finish


def operations(root: Node) -> Iterator[Operation]:
    """What makes the tree (from Tree.finish) out of an empty directory. BadInput as the index has it."""
    placed: dict[Node, bytes] = {}
    directories: list[tuple[bytes, Node]] = []
    stack = [(b"", root)]
    while stack:
        path, directory = stack.pop()
        directories.append((path, directory))
        children = directory.entries()
        for name in sorted(children):
            child = children[name]
            child_path = path + b"/" + name if path else name
            if child.children is not None:
                yield MakeDirectory(path=child_path)
                stack.append((child_path, child))
            elif child in placed:
                yield MakeLink(path=child_path, target=placed[child])
            else:
                placed[child] = child_path
                yield _make(child_path, child.entry)
                yield _finish(child_path, child)
    # Parents stand before their children in the list, so backwards no directory is touched after its own.
    for path, directory in reversed(directories):
        yield _finish(path, directory)


def _make(path: bytes, entry: Entry) -> Operation:
    if entry.kind is Kind.FILE:
        runs = entry.sparse
        if runs is None:
            runs = (Segment(0, entry.size, entry.offset),) if entry.size else ()
        return WriteFile(path=path, size=entry.size, runs=runs)
    if entry.kind is Kind.SYMLINK:
        return MakeSymlink(path=path, target=entry.target)
    return MakeNode(path=path, kind=entry.kind, major=entry.major, minor=entry.minor)


def _finish(path: bytes, node: Node) -> Finish:
    entry = node.entry
    return Finish(
        path=path,
        kind=entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        seconds=entry.seconds,
        nanoseconds=entry.nanoseconds,
        xattrs=xattr.kept(entry) + node.marks(),
    )
