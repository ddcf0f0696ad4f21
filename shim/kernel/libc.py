"""The C library as Crisp needs it: raw calls that raise OSError, and nothing about what they are for.

Numbers of system calls added since Linux 5.1 are the same on every architecture that Crisp runs on
(kernel: scripts/syscall.tbl, 424 and up), so the calls without a wrapper in older C libraries go by number.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000

SYS_OPEN_TREE: Final = 428
SYS_MOVE_MOUNT: Final = 429
SYS_FSOPEN: Final = 430
SYS_FSCONFIG: Final = 431
SYS_FSMOUNT: Final = 432
SYS_OPENAT2: Final = 437
SYS_MOUNT_SETATTR: Final = 442

Argument = int | bytes | None | ctypes.Array[ctypes.c_char] | ctypes.Structure


def failure(number: int, what: str, path: str = "") -> OSError:
    """The OSError for errno `number`; `what` names the call in the message."""
    text = f"{what}: {os.strerror(number)}"
    return OSError(number, text, path) if path else OSError(number, text)


def _convert(value: Argument) -> object:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, int):
        return ctypes.c_long(value)
    if isinstance(value, bytes):
        return ctypes.c_char_p(value)
    return ctypes.byref(value)


def call(name: str, *arguments: Argument, path: str = "") -> int:
    """Call a function of the C library that returns -1 and errno on failure; EINTR is repeated."""
    function = getattr(_libc, name)
    while True:
        result = int(function(*(_convert(argument) for argument in arguments)))
        if result != -1:
            return result
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise failure(number, name, path)


def syscall(number: int, name: str, *arguments: Argument, path: str = "") -> int:
    """Call the kernel by number; `name` is for the message. Raises OSError, ENOSYS on kernels without it."""
    while True:
        result = int(_libc.syscall(ctypes.c_long(number), *(_convert(argument) for argument in arguments)))
        if result != -1:
            return result
        error = ctypes.get_errno()
        if error != errno.EINTR:
            raise failure(error, name, path)
