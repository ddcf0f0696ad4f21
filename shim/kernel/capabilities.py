"""The calling thread's capabilities (capget(2), capset(2)): which it has, and giving some up for good."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable
from typing import Final

from shim.kernel import libc

# linux/capability.h
CHOWN: Final = 0
DAC_OVERRIDE: Final = 1
FOWNER: Final = 3
FSETID: Final = 4
SYS_ADMIN: Final = 21
SYS_RESOURCE: Final = 24
MKNOD: Final = 27
SETFCAP: Final = 31

_HEADER: Final = struct.pack("=Ii", 0x20080522, 0)  # version 3, this thread
_SETS: Final = struct.Struct("=6I")  # effective, permitted, inheritable; their upper halves


def has(number: int) -> bool:
    """Whether it is in force. Raises OSError."""
    low, _, _, high, _, _ = _SETS.unpack(_get())
    return bool((low | high << 32) >> number & 1)


def keep(numbers: Iterable[int]) -> None:
    """Have no capabilities but these, and of these those that were there. Raises OSError."""
    _, low, _, _, high, _ = _SETS.unpack(_get())
    kept = sum(1 << number for number in set(numbers)) & (low | high << 32)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    sets = ctypes.create_string_buffer(_SETS.pack(low, low, 0, high, high, 0), _SETS.size)
    libc.call("capset", ctypes.create_string_buffer(_HEADER), sets)


def _get() -> bytes:
    held = ctypes.create_string_buffer(_SETS.size)
    libc.call("capget", ctypes.create_string_buffer(_HEADER), held)
    return held.raw
