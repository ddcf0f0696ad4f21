"""openat2(2): opening below a directory that is not trusted, by the kernel's own rules of resolution.

Knows nothing about root file systems or containers; callers say how far a path may lead.
"""

from __future__ import annotations

import ctypes
import errno
import os
from enum import IntFlag
from pathlib import Path

from oci.errors import Unsupported
from shim.kernel import libc


class Resolve(IntFlag):
    """RESOLVE_* of linux/openat2.h."""

    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08
    IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: str | bytes, flags: int, resolve: Resolve, mode: int = 0) -> int:
    """Open `path` relative to the descriptor `directory`; the new descriptor is close-on-exec.

    Raises OSError as openat2(2) (EXDEV and ELOOP where `resolve` forbids the way), Unsupported on a kernel
    before 5.6. EAGAIN, which the kernel gives when a rename races the walk, is repeated.
    """
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=int(resolve))
    name = os.fsencode(path)
    shown = os.fsdecode(name)
    while True:
        try:
            return libc.syscall(
                libc.SYS_OPENAT2, "openat2", directory, name, how, ctypes.sizeof(how), path=shown
            )
        except OSError as error:
            if error.errno == errno.EAGAIN:
                continue
            if error.errno == errno.ENOSYS:
                raise Unsupported(
                    "openat2 is missing (ENOSYS): the kernel is older than 5.6, or a seccomp filter hides it"
                ) from error
            raise


def open_in_root(root: str | Path, path: str, flags: int, *, mode: int = 0, follow: bool = True) -> int:
    """Open `path` as a process whose root directory is `root` would: links cannot lead out of it.

    With `follow=False` any symbolic link in the path is ELOOP. Raises OSError, Unsupported.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS
        if not follow:
            resolve |= Resolve.NO_SYMLINKS
        return openat2(directory, path, flags, resolve, mode)
    finally:
        os.close(directory)
