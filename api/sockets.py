"""Listening sockets: taken only if nobody answers on them, and never left open to others.

gRPC would silently replace a live server's unix socket, so each path is tried first; the state directory's
lock keeps two daemons of one state apart.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from oci.errors import Busy, Internal

SOCKET_MODE = 0o660
_PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


def claim(path: Path) -> None:
    """Make the directory and remove a socket that nobody serves.

    Raises Busy with the pid of who answers there, Internal when something that is no socket is in the way.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise Internal(
            f"socket {path}: something that is not a socket is there, remove it or change the setting"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except TimeoutError:
            raise Busy(f"socket {path}: another process listens there but does not answer") from None
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise Internal(f"socket {path}: {error.strerror} (errno {error.errno})") from error
        pid, _, _ = _PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    raise Busy(f"socket {path}: process {pid} already serves it, stop it or set another path")


def protect(path: Path) -> None:
    """Give the bound socket its mode: the owner and the group may use it."""
    path.chmod(SOCKET_MODE)
