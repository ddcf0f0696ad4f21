"""Stands between a client of streams and the daemon: passes everything on unchanged, and keeps it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from urllib.parse import SplitResult


@dataclass
class Passed:
    """One streaming request: what it asked for, its head, and who said what behind the answer, in order."""

    kind: str
    query: dict[str, list[str]]
    head: bytes
    status: int = 0
    protocol: str = ""
    said: list[tuple[str, bytes]] = field(default_factory=list)  # "client" or "server"


def relay(client: socket.socket, head: bytes, url: SplitResult, one: Passed) -> None:
    """Take a request, with what came behind its head, to the daemon's URL; pass on both ways to the end."""
    request, _, rest = head.partition(b"\r\n\r\n")
    method, _, remainder = request.split(b" ", 2)
    one.head = b" ".join((method, url.path.encode(), remainder)) + b"\r\n\r\n"
    with socket.create_connection((url.hostname, url.port), timeout=60) as daemon:
        daemon.sendall(one.head + rest)
        if rest:
            one.said.append(("client", rest))
        back = threading.Thread(target=_back, args=(daemon, client, one))
        back.start()
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                one.said.append(("client", data))
                daemon.sendall(data)
        with contextlib.suppress(OSError):
            daemon.shutdown(socket.SHUT_WR)
        back.join()


def _back(daemon: socket.socket, client: socket.socket, one: Passed) -> None:
    with contextlib.suppress(OSError):
        answer = read_head(daemon)
        client.sendall(answer)
        head, _, rest = answer.partition(b"\r\n\r\n")
        one.status = int(head.split(b" ", 2)[1])
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() in ("sec-websocket-protocol", "x-stream-protocol-version"):
                one.protocol = value
        if rest:
            one.said.append(("server", rest))
        while data := daemon.recv(65536):
            one.said.append(("server", data))
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)


def read_head(connection: socket.socket) -> bytes:
    """To the empty line, and what came with it; b"" when the connection ended before."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    return data


class Server(Protocol):
    """Answers one connection at a time in `serve`; `url` is where it listens."""

    url: str

    def serve(self, client: socket.socket) -> None: ...


S = TypeVar("S", bound=Server)


@contextmanager
def serving(server: S) -> Iterator[S]:
    """Listens at `server.url` within the block; a thread for each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    threads: list[threading.Thread] = []

    def one(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            server.serve(client)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=one, args=(listener.accept()[0],)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listener.close()
        for thread in threads:
            thread.join()
