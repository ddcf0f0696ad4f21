"""Network links, as far as no plugin is worth starting for them: the loopback device, a bridge's removal."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from typing import Final

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_SIOCBRDELBR: Final = 0x89A1
_IFF_UP: Final = 0x1
_IFREQ = struct.Struct("16sh22x")


def bring_up(name: str) -> None:
    """Set a link of the calling thread's network namespace up (netdevice(7)). Raises OSError."""
    with _handle() as handle:
        flags = _flags(handle, name)
        if not flags & _IFF_UP:
            fcntl.ioctl(handle, _SIOCSIFFLAGS, _IFREQ.pack(name.encode("ascii"), flags | _IFF_UP))


def remove_bridge(name: str) -> None:
    """Set a bridge down and remove it; absent is success. Raises OSError, EPERM for what is no bridge."""
    with _handle() as handle:
        try:
            flags = _flags(handle, name)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            raise
        fcntl.ioctl(handle, _SIOCSIFFLAGS, _IFREQ.pack(name.encode("ascii"), flags & ~_IFF_UP))
        fcntl.ioctl(handle, _SIOCBRDELBR, name.encode("ascii") + b"\0")


def _handle() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def _flags(handle: socket.socket, name: str) -> int:
    answer = fcntl.ioctl(handle, _SIOCGIFFLAGS, _IFREQ.pack(name.encode("ascii"), 0))
    return int(_IFREQ.unpack(answer)[1])
