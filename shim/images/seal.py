"""One digest over what was made of a layer's tar, by which it is known again: what `crisp fsck` compares.

The tar itself has its diff id. An index is sealed with the list of undescribed directories beside it, an
unpacked tree with every name, mode, owner, size, time, link, device and content; extended attributes of files
are left out. Blocking.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from oci.layers.tree import Node

_BLOCK: Final = 1 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def seal_of_index(index: bytes, implied: bytes) -> str:
    """Of the two files' contents; `implied` is empty where there is no such file."""
    digest = hashlib.sha256(index)
    digest.update(b"\0")
    digest.update(implied)
    return digest.hexdigest()


def seal_of_tree(directory: int, *, step: Callable[[int], None] = lambda _size: None) -> str:
    """Of everything below an opened directory. `step` hears how many bytes were read. Raises OSError."""
    digest = hashlib.sha256()
    _seal(directory, None, digest.update, {}, step)
    return digest.hexdigest()


def seal_of_made(directory: int, root: Node, contents: Mapping[int, bytes]) -> tuple[str, int]:
    """The same of a tree that was just made, without listing or reading it: its process may do neither.

    Also the bytes that it takes on disk, as `usage.walk` counts them, who would look at all of it once more.
    `contents` has the digest of every file's content by inode number. Raises OSError.
    """
    digest = hashlib.sha256()
    blocks: dict[int, int] = {}
    _seal(directory, root, digest.update, dict(contents), lambda _size: None, blocks)
    return digest.hexdigest(), (os.fstat(directory).st_blocks + sum(blocks.values())) * 512


def _seal(
    directory: int,
    node: Node | None,
    add: Callable[[bytes], None],
    contents: dict[int, bytes],
    step: Callable[[int], None],
    blocks: dict[int, int] | None = None,
) -> None:
    """`blocks` takes those of each inode."""
    made = None if node is None else node.entries()
    for name in sorted(map(os.fsencode, os.listdir(directory)) if made is None else made):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        child = None if made is None else made[name]
        if blocks is not None:
            blocks[found.st_ino] = found.st_blocks
        mode, size = found.st_mode, found.st_size if stat.S_ISREG(found.st_mode) else 0
        facts = (mode, found.st_uid, found.st_gid, size, found.st_mtime_ns, found.st_rdev)
        add(b"%d\0%s\0%s\0" % (len(name), name, " ".join(map(str, facts)).encode("ascii")))
        if stat.S_ISDIR(mode):
            inner = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                _seal(inner, child, add, contents, step, blocks)
            finally:
                os.close(inner)
            add(b"end\0")
        elif stat.S_ISREG(mode):
            if found.st_ino not in contents:
                contents[found.st_ino] = _content(directory, name, step)
            add(contents[found.st_ino])
        elif stat.S_ISLNK(mode):
            add(os.readlink(name, dir_fd=directory) if child is None else child.entry.target)


def _content(directory: int, name: bytes, step: Callable[[int], None]) -> bytes:
    descriptor = os.open(name, _FILE, dir_fd=directory)
    try:
        return hash_file(descriptor, step).digest()
    finally:
        os.close(descriptor)


def hash_file(descriptor: int, step: Callable[[int], None]) -> hashlib._Hash:
    """sha256 of an opened file from its beginning, in one buffer. Raises OSError."""
    digest = hashlib.sha256()
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    while count := os.readv(descriptor, [buffer]):
        digest.update(view[:count])
        step(count)
    return digest


def read_or_none(path: Path) -> bytes | None:
    """The file's content, None if there is none. Raises OSError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
