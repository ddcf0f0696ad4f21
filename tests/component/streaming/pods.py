"""Servers inside pods, for what is forwarded to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from api.proto import cri_pb2
from shim.kernel.namespace import within_network
from tests.component.cri.client import Client


class Echo:
    """Echoes on any number of connections, by one thread."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._selector = selectors.DefaultSelector()
        self._ending, self._end = socket.socketpair()
        self.most = 0  # connections at a time

    def __enter__(self) -> Echo:
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr] # only sockets are there
        self._selector.close()

    def _serve(self) -> None:
        for each in (self._server, self._ending):
            self._selector.register(each, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                one: Any = key.fileobj
                if one is self._ending:
                    return
                if one is self._server:
                    self._selector.register(one.accept()[0], selectors.EVENT_READ)
                    self.most = max(self.most, len(self._selector.get_map()) - 2)
                elif data := one.recv(65536):
                    one.sendall(data)
                else:
                    self._selector.unregister(one)
                    one.close()


def listener(client: Client, pod: str, port: int) -> socket.socket:
    """A socket that listens at the loopback of a pod."""
    request = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
    status = client.call("PodSandboxStatus", request)
    network = json.loads(status.info["info"])["namespaces"]["network"]
    return asyncio.run(
        within_network(network, lambda: socket.create_server(("127.0.0.1", port), backlog=4096))
    )


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
