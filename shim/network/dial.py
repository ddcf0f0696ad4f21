"""Connections to a pod's own loopback, for port forwarding.

A socket belongs to the network namespace in which it was made, wherever it is used later. So a thread enters
the namespace, makes the sockets and ends; the connecting itself is the event loop's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Final

from oci.errors import Absent, Deadline, Full, Internal
from shim.kernel.namespace import within_network

TIME: Final = 10.0
"""Seconds that one connection may take."""
_ADDRESSES: Final = {int(socket.AF_INET): "127.0.0.1", int(socket.AF_INET6): "::1"}
"""In the order in which they are tried."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


async def dial(network: str, port: int) -> socket.socket:
    """A connection to 127.0.0.1, else to ::1, at `port`; `network` is a namespace's path, "" for our own.

    Not blocking. Raises Absent when nothing listens at either, Deadline, Full, Internal.
    """
    made: list[socket.socket] = []
    refusals = []
    try:
        if network:
            await within_network(network, lambda: _make_sockets(made))
        else:
            _make_sockets(made)
        async with asyncio.timeout(TIME):
            for each in list(made):
                address = _ADDRESSES[each.family]
                try:
                    await asyncio.get_running_loop().sock_connect(each, (address, port))
                except OSError as error:
                    name = errno.errorcode.get(error.errno or 0, "")
                    refusals.append(f"{address}: {os.strerror(error.errno or 0)} ({name})")
                else:
                    made.remove(each)
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return each
    except TimeoutError:
        raise Deadline(f"port {port}: no connection within {TIME:g} s") from None
    except OSError as error:
        kind = Full if error.errno in _EXHAUSTED else Internal
        raise kind(f"port {port}: a socket in {network or 'the host'}: {error.strerror}") from error
    finally:
        for each in made:
            each.close()
    raise Absent(f"port {port}: nothing answers in the pod: {', '.join(refusals)}")


def _make_sockets(made: list[socket.socket]) -> None:
    for family in _ADDRESSES:
        try:
            made.append(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
