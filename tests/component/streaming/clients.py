"""Clients of the streaming server over real connections: every dialect, and nothing hidden."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from api.proto import cri_pb2
from api.streaming.channels import SPDY, WEBSOCKET, Channel, Outcome, Version, Wanted, read_last_word
from api.streaming.client import Answer, Opening, Said, SpdyRemoteClient, WebSocketRemoteClient
from api.streaming.events import Gone, Reply
from tests.component.cri.client import Client
from tests.images import catalogue

LIMIT = 60.0  # seconds that any read here may take
PLAIN = Wanted(stdin=True, stdout=True, stderr=True, tty=False)
TTY = Wanted(stdin=True, stdout=True, stderr=False, tty=True)

DIALECTS: dict[str, tuple[bool, Version]] = {
    **{f"SPDY {version.name}": (False, version) for version in SPDY.values()},
    **{f"WebSocket {version.name or '(none)'}": (True, version) for version in WEBSOCKET.values()},
}
NEWEST = "WebSocket v5.channel.k8s.io"
OLDEST = "SPDY v4.channel.k8s.io"


def opened(url: str, protocols: tuple[str, ...], *, websocket: bool) -> tuple[socket.socket, Answer, bytes]:
    """A connection, the server's answer, and what came behind it."""
    opening = Opening(url, protocols, websocket=websocket)
    connection = socket.create_connection((opening.host, opening.port), timeout=LIMIT)
    connection.sendall(opening.request())
    answer = None
    while answer is None:
        answer = opening.receive(connection.recv(65536))
    return connection, answer, opening.rest()


@dataclass
class Remote:
    """One exec or attach, as its client sees it."""

    connection: socket.socket
    core: Any
    taken: dict[Channel, bytearray] = field(default_factory=lambda: {each: bytearray() for each in Channel})
    gone: Gone | None = None
    closed: bool = False

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def step(self) -> None:
        """Take what comes next."""
        data = self.connection.recv(65536)
        if not data:
            self.closed = True
        self.hear(data)

    def hear(self, data: bytes) -> None:
        for event in self.core.receive(data):
            if isinstance(event, Said):
                self.taken[event.channel] += event.data
            elif isinstance(event, Reply):
                self.send(event.data)
            elif isinstance(event, Gone):
                self.gone = event

    def until(self, words: bytes, channel: Channel = Channel.STDOUT) -> bytearray:
        while words not in self.taken[channel]:
            assert not self.closed, f"closed after {self.taken}"
            self.step()
        return self.taken[channel]

    def end(self) -> Outcome:
        """Everything to the end of the connection; what the session said last."""
        while not self.closed:
            self.step()
        return read_last_word(bytes(self.taken[Channel.ERROR]))


@contextmanager
def conversation(url: str, dialect: str, wanted: Wanted) -> Iterator[Remote]:
    websocket, version = DIALECTS[dialect]
    connection, answer, rest = opened(url, (version.name,), websocket=websocket)
    with connection:
        assert (answer.status, answer.protocol) == (101, version.name), answer
        core = (WebSocketRemoteClient if websocket else SpdyRemoteClient)(wanted, version)
        remote = Remote(connection, core)
        remote.send(core.start())
        remote.hear(rest)
        yield remote


def exec_url(client: Client, container: str, *command: str, wanted: Wanted = PLAIN) -> str:
    request = cri_pb2.ExecRequest(
        container_id=container,
        cmd=command,
        tty=wanted.tty,
        stdin=wanted.stdin,
        stdout=wanted.stdout,
        stderr=wanted.stderr,
    )
    url: str = client.call("Exec", request).url
    return url


def attach_url(client: Client, container: str, *, wanted: Wanted = PLAIN) -> str:
    request = cri_pb2.AttachRequest(
        container_id=container,
        tty=wanted.tty,
        stdin=wanted.stdin,
        stdout=wanted.stdout,
        stderr=wanted.stderr,
    )
    url: str = client.call("Attach", request).url
    return url


def forward_url(client: Client, pod: str, *ports: int) -> str:
    url: str = client.call("PortForward", cri_pb2.PortForwardRequest(pod_sandbox_id=pod, port=ports)).url
    return url


def shell(client: Client, *, tty: bool, script: str, stdin_once: bool = False, pod: str = "") -> str:
    """A running container whose shell reads its input."""
    pod = pod or client.run_pod()
    config = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="shell", attempt=0),
        image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX),
        command=["sh", "-c", script],
        stdin=True,
        stdin_once=stdin_once,
        tty=tty,
        log_path="shell.log",
        linux=cri_pb2.LinuxContainerConfig(
            security_context=cri_pb2.LinuxContainerSecurityContext(
                namespace_options=client.pods[pod].linux.security_context.namespace_options
            )
        ),
    )
    request = cri_pb2.CreateContainerRequest(
        pod_sandbox_id=pod, config=config, sandbox_config=client.pods[pod]
    )
    id_: str = client.call("CreateContainer", request).container_id
    client.start(id_)
    return id_
