"""Network links, as far as no plugin is worth starting for them: the loopback device."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_IFREQ = struct.Struct("16sh22x")


def bring_up(name: str) -> None:
    """Set a link of the calling thread's network namespace up (netdevice(7)). Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as handle:
        answer = fcntl.ioctl(handle, _SIOCGIFFLAGS, _IFREQ.pack(name.encode("ascii"), 0))
        flags = _IFREQ.unpack(answer)[1]
        if not flags & _IFF_UP:
            fcntl.ioctl(handle, _SIOCSIFFLAGS, _IFREQ.pack(name.encode("ascii"), flags | _IFF_UP))
