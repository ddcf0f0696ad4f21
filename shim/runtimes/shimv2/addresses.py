"""Where shims listen, and reaching them there: unix sockets, abstract ones, vsock, hybrid vsock.

Go shims let in only their own user and group (SO_PEERCRED).
"""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oci.errors import Absent, BadInput, Busy, Internal

TIME: Final = 5.0
"""Seconds that a connection may take."""
LONGEST_PATH: Final = 107
"""Bytes of a socket's path (unix(7))."""
_ANSWER: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Unix:
    """`path` of a socket; abstract when it begins with NUL."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vsock:
    """A port of a virtual machine."""

    cid: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridVsock:
    """A port of a virtual machine behind a unix socket, which is asked for it (Firecracker)."""

    path: str
    port: int


Address = Unix | Vsock | HybridVsock


def parse_address(text: str) -> Address:
    """`unix:///path`, `vsock://CID:PORT`, `hvsock://PATH:PORT`, or a bare name. Raises BadInput."""
    if text.startswith("unix://"):
        return _unix(text.removeprefix("unix://"))
    if match := re.fullmatch(r"vsock://(\d{1,10}):(\d{1,10})", text):
        cid, port = int(match[1]), int(match[2])
        if cid > 0xFFFFFFFF or port > 0xFFFFFFFF:
            raise BadInput(f"shim address {text!r}: numbers have 32 bits")
        return Vsock(cid=cid, port=port)
    if match := re.fullmatch(r"hvsock://(/[^\0]+):(\d{1,10})", text):
        if int(match[2]) > 0xFFFFFFFF:
            raise BadInput(f"shim address {text!r}: a port has 32 bits")
        unix = _unix(match[1])
        return HybridVsock(path=unix.path, port=int(match[2]))
    if "://" in text or not text or any(character.isspace() or character == "\0" for character in text):
        raise BadInput(f"shim address {text[:200]!r}: not unix:, vsock:, hvsock: or a name")
    return _unix(text if text.startswith("/") else f"\0{text}")


def _unix(path: str) -> Unix:
    if len(path) < 2 or len(path.encode()) > LONGEST_PATH or "\0" in path[1:]:
        raise BadInput(
            f"shim address: {path[:200]!r} is no path for a socket, which has 2 to {LONGEST_PATH} bytes"
        )
    return Unix(path=path)


async def connect(address: Address) -> socket.socket:
    """A connection, not blocking. Raises Absent when nobody listens, Busy when it takes long, Internal."""
    made = socket.socket(
        socket.AF_VSOCK if isinstance(address, Vsock) else socket.AF_UNIX, socket.SOCK_STREAM
    )
    try:
        made.setblocking(False)
        async with asyncio.timeout(TIME):
            await _connect(made, address)
    except (FileNotFoundError, ConnectionError) as error:
        made.close()
        raise Absent(f"shim: nobody listens at {shown(address)} ({error.strerror})") from error
    except TimeoutError as error:
        made.close()
        raise Busy(f"shim: no connection to {shown(address)} within {TIME:g} s") from error
    except OSError as error:
        made.close()
        raise Internal(f"shim: {shown(address)}: {error.strerror}") from error
    except BaseException:
        made.close()
        raise
    return made


async def _connect(made: socket.socket, address: Address) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(address, Vsock):
        await loop.sock_connect(made, (address.cid, address.port))
        return
    await loop.sock_connect(made, address.path)
    if isinstance(address, HybridVsock):
        await loop.sock_sendall(made, f"CONNECT {address.port}\n".encode())
        answer = bytearray()
        while not answer.endswith(b"\n"):  # byte by byte: what follows is the conversation's
            piece = await loop.sock_recv(made, 1)
            if not piece or len(answer) > _ANSWER:
                raise Internal(f"shim: {shown(address)} answered {bytes(answer)!r} to CONNECT")
            answer += piece
        if not answer.startswith(b"OK"):
            raise Absent(f"shim: {shown(address)} answered {bytes(answer)!r} to CONNECT")


def shown(address: Address) -> str:
    """The address as people write it."""
    match address:
        case Unix(path=path):
            return path.replace("\0", "@")
        case Vsock(cid=cid, port=port):
            return f"vsock://{cid}:{port}"
        case HybridVsock(path=path, port=port):
            return f"hvsock://{path}:{port}"


def remove_stale(address: Address) -> None:
    """Remove the socket of a shim that is gone. Blocking."""
    if isinstance(address, Unix) and address.path.startswith("/"):
        Path(address.path).unlink(missing_ok=True)
