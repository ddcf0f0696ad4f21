"""The few answers that kubectl wants before it streams: a Kubernetes API server for one pod.

Discovery, the pod, and the streaming requests, which it takes to the URL that the daemon gives for them, as
API server and kubelet do. What passes behind the upgrade is passed on unchanged, and kept for who asks.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.doubles.relay import Passed, read_head, relay

CONTAINER: Final = "main"


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
        head = read_head(client)
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
        one = Passed(kind=kind, query=query, head=b"")
        self.passed.append(one)
        relay(client, head, urlsplit(self.streaming(kind, query)), one)
