"""What this kernel can do, found by trying and remembered: versions lie where distributions backport."""

from __future__ import annotations

import errno
import functools
import os
import re
import tempfile
from pathlib import Path

from shim.kernel import libc

_SET_STRING, _CMD_CREATE = 1, 6


def parse_version(release: str) -> tuple[int, int]:
    """ "6.1.0-18-amd64" as (6, 1). Raises ValueError for text that begins with no version."""
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None:
        raise ValueError(f"not a kernel release: {release!r}")
    return int(found[1]), int(found[2])


@functools.cache
def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    return parse_version(os.uname().release)


@functools.cache
def has_lowerdir_plus() -> bool:
    """Whether overlay takes its layers one at a time (Linux 6.8); False without CAP_SYS_ADMIN too."""
    try:
        context = libc.syscall(libc.SYS_FSOPEN, "fsopen", b"overlay", 1)
    except OSError:
        return False
    try:
        libc.syscall(libc.SYS_FSCONFIG, "fsconfig", context, _SET_STRING, b"lowerdir+", b"/", 0)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(context)


@functools.cache
def can_mount_erofs_from_file(directory: Path) -> bool:
    """Whether EROFS takes a plain file of `directory` as its device (Linux 6.12; never one of a tmpfs).

    An empty file is offered: a kernel that cannot refuses it for what it is (ENOTBLK), one that can for what
    is in it. False without CAP_SYS_ADMIN, and where the file system is missing (ENODEV).
    """
    try:
        context = libc.syscall(libc.SYS_FSOPEN, "fsopen", b"erofs", 1)
    except OSError:
        return False
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix="probe-") as file:
            file.truncate(8192)
            name = os.fsencode(file.name)
            libc.syscall(libc.SYS_FSCONFIG, "fsconfig", context, _SET_STRING, b"source", name, 0)
            libc.syscall(libc.SYS_FSCONFIG, "fsconfig", context, _CMD_CREATE, None, None, 0)
    except OSError as error:
        return error.errno in (errno.EINVAL, errno.EUCLEAN)
    finally:
        os.close(context)
    return True
