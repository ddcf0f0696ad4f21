"""The directory form: a verified tar unpacked by a process of its own, `python -m shim.images.unpack`.

Two inherited descriptors are all it gets: the tar and an empty directory. It puts walls around itself
(`confinement.py`) and only then reads the tar, so no path of it can mean anything outside. What to make is
what the EROFS index would show (`oci/layers/tree.py` decides both), and it is made below opened directories,
so not even links inside the layer are followed. `unpacking.py` is the daemon's end.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Callable

from oci.errors import CrispError
from oci.layers.entry import Entry, Kind, Segment, shown
from oci.layers.tar import TarReader
from oci.layers.tree import Node, Tree
from oci.layers.xattr import kept
from shim.images.confinement import Bounds, confine, limit
from shim.images.seal import seal_of_made

BAD_LAYER = 3
"""Exit status: the layer is at fault, standard error says how."""
NO_SPACE = 4
"""Exit status: the disk or quota is full."""

OPEN = "open"
"""Last argument: do not confine, where this process may not."""

NICE = 10
"""As of the process that fetches: what answers, and pods that start, go first."""

_BLOCK = 1 << 20
_DEPTH = 10_000


def read_tree(tar: int) -> Node:
    """The tree of the tar's headers. Raises BadInput."""
    reader, tree = TarReader(), Tree()
    while block := os.read(tar, _BLOCK):
        for entry in reader.receive(block):
            tree.add(entry)
    reader.finish()
    return tree.finish()


class Writer:
    """Makes a tree's nodes in an empty directory. Needs root."""

    def __init__(self, tar: int) -> None:
        self._tar = tar
        self._made: dict[Node, bytes] = {}
        self._path = b""
        self.contents: dict[int, bytes] = {}  # digests of files' contents by inode number

    @property
    def path(self) -> str:
        """What was being made, for the error message."""
        return shown(self._path)

    def write(self, root: Node, directory: int) -> int:
        """Make everything below `directory`; the number of inodes."""
        os.umask(0)
        self._directory(root, directory, directory, b"")
        return len(self._made) + 1

    def _directory(self, node: Node, directory: int, top: int, path: bytes) -> None:
        for name, child in sorted(node.entries().items()):
            self._path = below = path + b"/" + name if path else name
            if child in self._made:
                # by the path of the first name, walked without following links: it was made by us
                self._link(top, child, directory, name)
                continue
            self._made[child] = below
            if child.children is None:
                self._leaf(child, directory, name)
                continue
            os.mkdir(name, 0o700, dir_fd=directory)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                self._directory(child, inner, top, below)
            finally:
                os.close(inner)
        self._path = path
        for attribute, value in node.marks():
            os.setxattr(directory, attribute, value)
        self._attributes(node.entry, directory)

    def _link(self, top: int, child: Node, directory: int, name: bytes) -> None:
        above, _, first = self._made[child].rpartition(b"/")
        descriptor = os.dup(top)
        try:
            for part in above.split(b"/") if above else ():
                inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            os.link(first, name, src_dir_fd=descriptor, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(descriptor)

    def _leaf(self, node: Node, directory: int, name: bytes) -> None:
        entry = node.entry
        if entry.kind is Kind.FILE:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(name, flags, 0o600, dir_fd=directory)
            try:
                self._content(entry, descriptor)
                self._attributes(entry, descriptor)
            finally:
                os.close(descriptor)
            return
        if entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=directory)
        else:
            device = os.makedev(entry.major, entry.minor)
            os.mknod(name, entry.kind | entry.mode, device, dir_fd=directory)
        os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        if entry.kind is not Kind.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=directory)
        for attribute, value in kept(entry):
            # /proc is out of reach: the name itself, in a directory that this process alone writes to
            os.fchdir(directory)
            os.setxattr(name, attribute, value, follow_symlinks=False)
        moment = entry.seconds * 1_000_000_000 + entry.nanoseconds
        os.utime(name, ns=(moment, moment), dir_fd=directory, follow_symlinks=False)

    def _attributes(self, entry: Entry, descriptor: int) -> None:
        os.fchown(descriptor, entry.uid, entry.gid)  # before the mode: it clears set-user-id
        os.fchmod(descriptor, entry.mode)
        for attribute, value in kept(entry):
            os.setxattr(descriptor, attribute, value)
        moment = entry.seconds * 1_000_000_000 + entry.nanoseconds
        os.utime(descriptor, ns=(moment, moment))

    def _content(self, entry: Entry, descriptor: int) -> None:
        digest = hashlib.sha256()
        if entry.sparse is None:
            self._copy(Segment(0, entry.size, entry.offset), descriptor, digest.update)
        else:
            os.ftruncate(descriptor, entry.size)
            for run in entry.sparse:
                self._copy(run, descriptor, lambda _block: None)
            at = 0
            while block := os.pread(descriptor, _BLOCK, at):  # with its holes
                digest.update(block)
                at += len(block)
        self.contents[os.fstat(descriptor).st_ino] = digest.digest()

    def _copy(self, run: Segment, descriptor: int, add: Callable[[bytes], None]) -> None:
        done = 0
        while done < run.length:
            block = os.pread(self._tar, min(_BLOCK, run.length - done), run.source + done)
            if not block:
                raise OSError(errno.EIO, "the tar ended early")
            add(block)
            view = memoryview(block)
            while view:
                written = os.pwrite(descriptor, view, run.start + done)
                view = view[written:]
                done += written


def main(arguments: list[str]) -> int:
    """`TAR DIRECTORY MEMORY SECONDS [open]`: two descriptors, bounds. Prints inodes, bytes and seal."""
    tar, directory, memory, seconds = (int(word) for word in arguments[:4])
    sys.setrecursionlimit(_DEPTH)  # a path may have 2048 directories
    writer = Writer(tar)
    os.nice(NICE)
    try:
        limit(Bounds(memory=memory, seconds=seconds))
        if arguments[4:] != [OPEN]:
            confine(directory)
        root = read_tree(tar)
        inodes = writer.write(root, directory)
        seal, size = seal_of_made(directory, root, writer.contents)
    except CrispError as failure:
        return _fail(BAD_LAYER, str(failure))
    except OSError as failure:
        name = errno.errorcode.get(failure.errno or 0, "no errno")
        status = NO_SPACE if failure.errno in (errno.ENOSPC, errno.EDQUOT) else 1
        return _fail(status, f"entry {writer.path!r}: {os.strerror(failure.errno or 0).lower()} ({name})")
    except (MemoryError, RecursionError):
        return _fail(BAD_LAYER, f"entry {writer.path!r}: the layer needs too much memory")
    os.write(1, f"{inodes} {size} {seal}\n".encode("ascii"))
    return 0


def _fail(status: int, words: str) -> int:
    os.write(2, words.encode("utf-8", "replace"))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
