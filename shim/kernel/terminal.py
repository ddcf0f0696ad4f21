"""The terminal that a process in a container uses, reached through its descriptors."""

from __future__ import annotations

import contextlib
import os
import stat
import termios
from typing import Final

_PTS_MAJORS: Final = range(136, 144)
"""Device numbers of pseudo-terminals (Documentation/admin-guide/devices.txt)."""


def set_size(pid: int, *, width: int, height: int) -> bool:
    """Give the terminal at a process's standard streams a size; its foreground processes hear SIGWINCH.

    False when it has none. Not all runtimes pass a size on to a terminal that they made. What the streams are
    is the process's own choice, so nothing but a pseudo-terminal is ever opened.
    """
    for number in (0, 1, 2):
        with contextlib.suppress(OSError, termios.error):
            place = os.open(f"/proc/{pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
            try:
                if not _is_terminal(os.fstat(place)):
                    continue
                flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(f"/proc/self/fd/{place}", flags)
            finally:
                os.close(place)
            try:
                termios.tcsetwinsize(descriptor, (height, width))
                return True
            finally:
                os.close(descriptor)
    return False


def _is_terminal(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in _PTS_MAJORS
