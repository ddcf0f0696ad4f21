"""Servers inside pods, for what is forwarded to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.proto import cri_pb2
from shim.kernel.namespace import within_network
from tests.component.cri.client import Client


@contextmanager
def listening(network: str, port: int, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server inside a network namespace, a thread for each connection."""

    def listen() -> socket.socket:
        return socket.create_server(("127.0.0.1", port), backlog=512)

    server = asyncio.run(within_network(network, listen))
    threads = []

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=one, args=(server.accept()[0],)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)  # which ends the accepting
        accepting.join()
        server.close()
        for thread in threads:
            thread.join()


@contextmanager
def in_pod(client: Client, pod: str, port: int, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server at the loopback of a pod."""
    request = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
    status = client.call("PodSandboxStatus", request)
    with listening(json.loads(status.info["info"])["namespaces"]["network"], port, serve):
        yield


def echo(connection: socket.socket) -> None:
    """Says everything again, until the other side has ended."""
    while data := connection.recv(65536):
        connection.sendall(data)


def late(connection: socket.socket) -> None:
    """Answers when the other side has ended."""
    while connection.recv(65536):
        pass
    connection.sendall(b"got it\n")
