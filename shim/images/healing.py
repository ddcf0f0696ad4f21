"""A damaged layer made right where it lies: bytes that differ are written over in place.

Mounts hold files by inode, so what is healed in place is healed for containers that run on it too, once the
kernel has forgotten what it had read. Blocking, for threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

from shim.files import remove_tree, sync_directory, sync_file_system, write_atomic
from shim.images import layers
from shim.images.layout import Layout
from shim.images.parents import encode_implied
from shim.images.receive import Received, disk_failure
from shim.images.threads import Threads
from shim.images.unpacking import unpack
from shim.records import LayerRecord

_BLOCK: Final = 1 << 20
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def heal_files(layout: Layout, record: LayerRecord, received: Received) -> LayerRecord:
    """The EROFS form: tar, index and what belongs to them. Owns `received`; raises Full, Internal.

    An index is written over only by the very one that it was: a mounted file system must not become another
    one. Else the new one takes its name, and what is mounted keeps the old.
    """
    diff_id = record.diff_id
    try:
        _heal(received.tar, layout.tar(diff_id))
        if received.seal == record.seal:
            _heal(received.index, layout.index(diff_id))
        else:
            received.index.replace(layout.index(diff_id))
        if received.implied:
            write_atomic(layout.implied(diff_id), encode_implied(received.implied), durable=True)
        else:
            layout.implied(diff_id).unlink(missing_ok=True)
        sync_directory(layout.layers)
        forget_cached(layout.tree(diff_id))
    except OSError as failure:
        raise disk_failure(failure, layout.layers, f"layer {diff_id}") from failure
    finally:
        received.discard()
    return replace(record, size=layers.size_of(layout, diff_id, layers.EROFS), seal=received.seal)


def _heal(right: Path, target: Path) -> None:
    """Give `target` the content of `right`: in place where it exists. Raises OSError."""
    try:
        there = os.open(target, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        right.replace(target)
        return
    try:
        source = os.open(right, _READ)
        try:
            size, at = os.fstat(source).st_size, 0
            while at < size:
                block = os.pread(source, _BLOCK, at)
                if _read(there, len(block), at) != block:
                    _write(there, block, at)
                at += len(block)
            if os.fstat(there).st_size != size:
                os.ftruncate(there, size)
            os.fsync(there)
        finally:
            os.close(source)
    finally:
        os.close(there)


def _read(descriptor: int, size: int, at: int) -> bytes:
    try:
        return os.pread(descriptor, size, at)
    except OSError:  # a bad sector: writing it may have the disk take another
        return b""


def _write(descriptor: int, block: bytes, at: int) -> None:
    view = memoryview(block)
    while view:
        written = os.pwrite(descriptor, view, at)
        at += written
        view = view[written:]


def forget_cached(tree: Path) -> None:
    """Have the kernel forget what it has read of a mounted layer; what is mapped by processes stays.

    Only regular files are opened: to open a device that an image has would wake the node's own.
    """
    for base, _, names in os.walk(tree):
        for name in names:
            with contextlib.suppress(OSError):
                if not stat.S_ISREG(os.lstat(f"{base}/{name}").st_mode):
                    continue
                descriptor = os.open(f"{base}/{name}", _READ | os.O_NONBLOCK)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)


async def renew_tree(
    layout: Layout, threads: Threads, record: LayerRecord, received: Received, *, isolate: bool
) -> LayerRecord:
    """The directory form: unpacked beside, then every file made equal. Owns `received`; raises CrispError."""
    what, fresh = f"layer {record.diff_id}", layout.fresh(".tree")
    try:
        await threads.do(fresh.mkdir, 0o755)
        unpacked = await unpack(received.tar, fresh, what, isolate=isolate)
        await threads.do(_exchange, layout, record, fresh)
    except OSError as failure:
        raise disk_failure(failure, fresh, what) from failure
    finally:
        await threads.do(received.discard)
        await threads.do(remove_tree, fresh)
    size = await threads.do(layers.size_of, layout, record.diff_id, layers.DIRECTORY)
    return replace(record, size=size, seal=unpacked.seal)


def _exchange(layout: Layout, record: LayerRecord, fresh: Path) -> None:
    tree = layout.tree(record.diff_id)
    if tree.is_dir():
        _equal(fresh, tree)
    else:
        fresh.rename(tree)
    sync_file_system(tree)


def _equal(right: Path, there: Path) -> None:
    """Make a directory equal to another, which loses what is taken from it. Hard links need not stay such."""
    own = right.stat()  # as it was made: what is taken from it changes its time
    with os.scandir(right) as listing:
        wanted = {entry.name: entry.stat(follow_symlinks=False) for entry in listing}
    with os.scandir(there) as listing:
        found = {entry.name: entry.stat(follow_symlinks=False) for entry in listing}
    for name in found.keys() - wanted.keys():
        remove_tree(there / name)
    for name, status in wanted.items():
        before = found.get(name)
        if before is not None and not _same_kind(right / name, status, there / name, before):
            remove_tree(there / name)
            before = None
        if before is None:
            (right / name).rename(there / name)
        elif stat.S_ISDIR(status.st_mode):
            _equal(right / name, there / name)
        else:
            if stat.S_ISREG(status.st_mode):
                _heal(right / name, there / name)
            _attributes(right / name, status, there / name)
    _attributes(right, own, there)


def _same_kind(right: Path, wanted: os.stat_result, there: Path, found: os.stat_result) -> bool:
    if stat.S_IFMT(wanted.st_mode) != stat.S_IFMT(found.st_mode) or wanted.st_rdev != found.st_rdev:
        return False
    return not stat.S_ISLNK(wanted.st_mode) or right.readlink() == there.readlink()


def _attributes(right: Path, wanted: os.stat_result, there: Path) -> None:
    """Owner, mode, extended attributes and times, as they are of `right`.

    The kernel takes file capabilities away from what is written to or gets an owner, be it the one that it
    has (kernel: fs/attr.c, ATTR_KILL_PRIV): so attributes come after both, and what is right is left alone.
    """
    found = there.lstat()
    if (found.st_uid, found.st_gid) != (wanted.st_uid, wanted.st_gid):
        os.chown(there, wanted.st_uid, wanted.st_gid, follow_symlinks=False)
        found = there.lstat()
    if not stat.S_ISLNK(wanted.st_mode) and found.st_mode != wanted.st_mode:
        there.chmod(stat.S_IMODE(wanted.st_mode))
    extended, has = _extended(right), _extended(there)
    for name in has.keys() - extended.keys():
        os.removexattr(there, name, follow_symlinks=False)
    for name, value in extended.items():
        if has.get(name) != value:
            os.setxattr(there, name, value, follow_symlinks=False)
    os.utime(there, ns=(wanted.st_atime_ns, wanted.st_mtime_ns), follow_symlinks=False)


def _extended(path: Path) -> dict[str, bytes]:
    """The extended attributes; none where the file system has none."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as failure:
        if failure.errno != errno.ENOTSUP:
            raise
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
