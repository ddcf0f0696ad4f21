"""A second socket of the runtime interface that passes every call on, and has streams go through a relay.

For clients that dial the URL of an answer themselves, as crictl and critest do. Knows unary calls alone.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import grpc

from api.proto import cri_pb2
from tests.doubles.relay import Passed, read_head, relay, serving

STREAMING: Final = {"Exec": "exec", "Attach": "attach", "PortForward": "portforward"}
_FLAGS = ("stdin", "stdout", "stderr", "tty")
_SIZE = 16 << 20
_LIMIT = 600.0  # seconds, for calls without a deadline: gRPC takes no number that is too large


@dataclass
class Front(grpc.GenericRpcHandler):
    """`daemon` is the channel to the socket behind it; `asked` what each URL's path stands for."""

    daemon: grpc.Channel
    url: str = ""
    asked: dict[str, tuple[SplitResult, str, dict[str, list[str]]]] = field(default_factory=dict)
    passed: list[Passed] = field(default_factory=list)

    def service(self, details: Any) -> Any:
        method = str(details.method)

        def call(request: bytes, context: Any) -> bytes:
            limit = min(context.time_remaining(), _LIMIT)
            try:
                answer = self.daemon.unary_unary(method)(request, timeout=limit)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            name = method.rpartition("/")[2]
            return self._led_here(name, request, answer) if name in STREAMING else answer

        return grpc.unary_unary_rpc_method_handler(call)

    def _led_here(self, name: str, request: bytes, answer: bytes) -> bytes:
        wanted = getattr(cri_pb2, f"{name}Request").FromString(request)
        told = getattr(cri_pb2, f"{name}Response").FromString(answer)
        url = urlsplit(told.url)
        query = {flag: ["true"] for flag in _FLAGS if getattr(wanted, flag, False)}
        if name == "Exec":
            query["command"] = list(wanted.cmd)
        self.asked[url.path] = (url, STREAMING[name], query)
        told.url = f"{self.url}{url.path}"
        return bytes(told.SerializeToString())

    def serve(self, client: socket.socket) -> None:
        head = read_head(client)
        if head:
            url, kind, query = self.asked[head.split(b" ", 2)[1].decode()]
            one = Passed(kind=kind, query=query, head=b"")
            self.passed.append(one)
            relay(client, head, url, one)


@contextmanager
def front(endpoint: str) -> Iterator[tuple[str, Front]]:
    """The endpoint to use within the block in the place of the daemon's own, and what passes through it."""
    sizes = [("grpc.max_receive_message_length", _SIZE), ("grpc.max_send_message_length", _SIZE)]
    with (
        tempfile.TemporaryDirectory(prefix="front-") as directory,
        grpc.insecure_channel(endpoint.replace("unix://", "unix:"), options=sizes) as channel,
        serving(Front(channel)) as made,
    ):
        server = grpc.server(ThreadPoolExecutor(16), handlers=[made], options=sizes)
        server.add_insecure_port(f"unix:{Path(directory, 'cri.sock')}")
        server.start()
        try:
            yield f"unix://{directory}/cri.sock", made
        finally:
            server.stop(None).wait()
