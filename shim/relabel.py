"""Giving files the SELinux label of containers, by descriptor: no link or rename leads it elsewhere.

Blocking, as long as the tree takes.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from oci.errors import BadInput

ATTRIBUTE = "security.selinux"
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LABELS = (errno.ENOTSUP, errno.EROFS)


def relabel(field: str, path: str | Path, label: str, *, attribute: str = ATTRIBUTE) -> bool:
    """Set the label of `path` and of all below it, links not followed, other file systems not entered.

    `path` has no links left. False where the file system has no labels or cannot be written. Raises BadInput
    that names `field` (CVE-2021-43816 is why only what was opened is changed).
    """
    value = os.fsencode(label)
    try:
        top = os.open(path, _LOOK)
        try:
            if os.readlink(f"/proc/self/fd/{top}") != os.fspath(path):  # noqa: PTH115 - of a descriptor
                raise BadInput(f"{field}: {path} became another file while it was looked at")
            _set(top, value, attribute)
            _below(top, os.fstat(top).st_dev, value, attribute)
        finally:
            os.close(top)
    except OSError as error:
        if error.errno in _NO_LABELS:
            return False
        raise BadInput(f"{field}: relabelling {path}: {os.strerror(error.errno or 0)}") from error
    return True


def _set(descriptor: int, value: bytes, attribute: str) -> None:
    os.setxattr(f"/proc/self/fd/{descriptor}", attribute, value)


def _below(directory: int, device: int, value: bytes, attribute: str) -> None:
    try:
        listed = os.open(f"/proc/self/fd/{directory}", _LIST & ~os.O_NOFOLLOW)
    except NotADirectoryError:
        return
    try:
        for name in os.listdir(listed):  # noqa: PTH208 - a descriptor
            try:
                entry = os.open(name, _LOOK, dir_fd=listed)
            except FileNotFoundError:
                continue  # removed meanwhile
            try:
                if os.fstat(entry).st_dev == device:
                    _set(entry, value, attribute)
                    _below(entry, device, value, attribute)
            finally:
                os.close(entry)
    finally:
        os.close(listed)
