"""The few answers that kubectl wants before it streams: a Kubernetes API server for one pod.

Discovery, the pod, and the streaming requests, which it takes to the URL that the daemon gives for them, as
API server and kubelet do. What passes behind the upgrade is passed on unchanged, and kept for who asks.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

CONTAINER: Final = "main"


@dataclass
class Passed:
    """One streaming request: what it asked for, its head, and who said what behind the answer, in order."""

    kind: str
    query: dict[str, list[str]]
    head: bytes
    status: int = 0
    protocol: str = ""
    said: list[tuple[str, bytes]] = field(default_factory=list)  # "client" or "server"


@dataclass
class ApiServer:
    """`streaming` has the daemon's URL for a kind ("exec") and the query of the request."""

    pod: str
    streaming: Callable[[str, dict[str, list[str]]], str]
    tty: bool = False
    passed: list[Passed] = field(default_factory=list)
    url: str = ""

    def documents(self) -> dict[str, Any]:
        verbs = ["get", "list", "create"]
        resource = {"singularName": "", "namespaced": True, "kind": "Pod", "verbs": verbs}
        streams = [{**resource, "name": f"pods/{name}"} for name in ("exec", "attach", "portforward")]
        container = {"name": CONTAINER, "image": "busybox", "stdin": True, "tty": self.tty}
        return {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.2"},
            "/api/v1": {
                "kind": "APIResourceList",
                "groupVersion": "v1",
                "resources": [{**resource, "name": "pods", "shortNames": ["po"]}, *streams],
            },
            f"/api/v1/namespaces/default/pods/{self.pod}": {
                "kind": "Pod",
                "apiVersion": "v1",
                "metadata": {"name": self.pod, "namespace": "default", "uid": "1"},
                "spec": {"containers": [container], "nodeName": "node"},
                "status": {
                    "phase": "Running",
                    "containerStatuses": [{"name": CONTAINER, "ready": True, "state": {"running": {}}}],
                },
            },
        }

    def serve(self, client: socket.socket) -> None:
        """One connection: one answer, or a stream to its end."""
        head = _head(client)
        if not head:
            return
        target = urlsplit(head.split(b" ", 2)[1].decode())
        path, query = target.path, parse_qs(target.query)
        prefix = f"/api/v1/namespaces/default/pods/{self.pod}/"
        if path.startswith(prefix):
            self._stream(client, path.removeprefix(prefix), query, head)
            return
        document = self.documents().get(path)
        body = json.dumps(document or {"kind": "Status", "status": "Failure", "code": 404}).encode()
        status = b"200 OK" if document else b"404 Not Found"
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (
            status,
            len(body),
        )
        client.sendall(head + b"Connection: close\r\n\r\n" + body)

    def _stream(self, client: socket.socket, kind: str, query: dict[str, list[str]], head: bytes) -> None:
        url = urlsplit(self.streaming(kind, query))
        request, _, rest = head.partition(b"\r\n\r\n")
        method, _, remainder = request.split(b" ", 2)
        request = b" ".join((method, url.path.encode(), remainder)) + b"\r\n\r\n"
        one = Passed(kind=kind, query=query, head=request)
        self.passed.append(one)
        with socket.create_connection((url.hostname, url.port), timeout=60) as daemon:
            daemon.sendall(request + rest)
            if rest:
                one.said.append(("client", rest))
            back = threading.Thread(target=self._back, args=(daemon, client, one))
            back.start()
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    one.said.append(("client", data))
                    daemon.sendall(data)
                daemon.shutdown(socket.SHUT_WR)
            back.join()

    def _back(self, daemon: socket.socket, client: socket.socket, one: Passed) -> None:
        with contextlib.suppress(OSError):
            answer = _head(daemon)
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


def _head(connection: socket.socket) -> bytes:
    """To the empty line, and what came with it; b"" when the connection ended before."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    return data


@contextmanager
def serving(server: ApiServer) -> Iterator[ApiServer]:
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
