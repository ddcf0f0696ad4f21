"""Connections into pods: halves, many at once, resets, and what is told when nothing listens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from api.streaming.client import ForwardClient, Forwarded
from api.streaming.events import Gone
from api.streaming.websocket import Messages, Piece
from tests.component.cri.client import Client
from tests.component.streaming.clients import forward_url, opened
from tests.component.streaming.pods import Echo, echo, in_pod, late, listener
from tests.daemon import running


@dataclass
class Session:
    """A client of port forwarding, plain or in a tunnel."""

    connection: socket.socket
    tunnel: Messages | None
    core: ForwardClient = field(default_factory=ForwardClient)
    taken: dict[int, bytes] = field(default_factory=dict)
    words: dict[int, bytes] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    gone: bool = False

    def send(self, data: bytes) -> None:
        self.connection.sendall(self.tunnel.binary(data) if self.tunnel is not None else data)

    def connect(self, port: int) -> int:
        key, data = self.core.connect(port)
        self.taken[key] = self.words[key] = b""
        self.send(data)
        return key

    def step(self) -> None:
        data = self.connection.recv(65536)
        self.gone = self.gone or not data
        self.hear(data)

    def hear(self, data: bytes) -> None:
        if self.tunnel is not None:
            data = b"".join(e.data for e in self.tunnel.receive(data) if isinstance(e, Piece))
        for event in self.core.receive(data):
            if isinstance(event, Gone):
                self.gone = True
            elif isinstance(event, Forwarded) and event.error:
                self.words[event.key] += event.data
            else:
                self.taken[event.key] += event.data
                if event.ended:
                    self.ended.add(event.key)

    def until(self, key: int, words: bytes) -> None:
        while words not in self.taken[key]:
            assert not self.gone
            self.step()

    def until_ended(self, *keys: int) -> None:
        while not self.ended >= set(keys):
            assert not self.gone
            self.step()


@contextmanager
def forwarding(client: Client, pod: str, dialect: str) -> Iterator[Session]:
    protocol = "SPDY/3.1+portforward.k8s.io" if dialect == "tunnel" else "portforward.k8s.io"
    connection, answer, rest = opened(forward_url(client, pod), (protocol,), websocket=dialect == "tunnel")
    with connection:
        assert (answer.status, answer.protocol) == (101, protocol)
        session = Session(connection, Messages(client=True) if dialect == "tunnel" else None)
        session.hear(rest)
        yield session


@pytest.fixture
def pod(client: Client) -> Iterator[str]:
    """It echoes at port 8080, and answers at 8081 when the client has ended."""
    made = client.run_pod()
    with in_pod(client, made, 8080, echo), in_pod(client, made, 8081, late):
        yield made


DIALECTS = pytest.mark.parametrize("dialect", ["SPDY", "tunnel"])


@DIALECTS
def test_bytes_go_both_ways_and_halves_close_alone(client: Client, pod: str, dialect: str) -> None:
    with forwarding(client, pod, dialect) as session:
        first, second = session.connect(8080), session.connect(8081)
        session.send(session.core.send(first, b"hello"))
        session.until(first, b"hello")
        session.send(session.core.end(second))
        session.until_ended(second)
        session.send(session.core.end(first))
        session.until_ended(first)
    assert (session.taken, session.words) == (
        {first: b"hello", second: b"got it\n"},
        {first: b"", second: b""},
    )


@DIALECTS
def test_a_port_where_nothing_listens_is_told_and_the_session_goes_on(
    client: Client, pod: str, dialect: str
) -> None:
    with forwarding(client, pod, dialect) as session:
        none, good = session.connect(9), session.connect(8080)
        session.until_ended(none)
        while not session.words[none]:
            session.step()
        session.send(session.core.send(good, b"still here"))
        session.until(good, b"still here")
    assert b"nothing answers in the pod" in session.words[none]


def test_many_connections_share_a_session_and_a_reset_ends_one(client: Client, pod: str) -> None:
    with forwarding(client, pod, "SPDY") as session:
        keys = [session.connect(8080) for _ in range(100)]
        for key in keys:
            session.send(session.core.send(key, b"first %d." % key))
        for key in keys:
            session.until(key, b"first %d." % key)
        session.send(session.core.reset(keys[0]))
        for key in keys[1:]:
            session.send(session.core.send(key, b"second") + session.core.end(key))
        session.until_ended(*keys[1:])
    assert [session.taken[key] for key in keys[1:]] == [b"first %d.second" % key for key in keys[1:]]


def test_thousands_of_connections_share_a_session(prepared_machine: None) -> None:
    # A daemon without asyncio's debug mode, in which thousands of tasks are slow.
    with ExitStack() as stack:
        client = Client(stack.enter_context(running(environment={})))
        pod = client.run_pod(cgroup_parent="")
        server = stack.enter_context(Echo(listener(client, pod, 8080)))
        session = stack.enter_context(forwarding(client, pod, "SPDY"))
        keys = []
        for _ in range(20):  # by turns: what the client is told must be taken, too
            keys += [session.connect(8080) for _ in range(100)]
            for key in keys[-100:]:
                session.send(session.core.send(key, b"first %d." % key))
            for key in keys[-100:]:
                session.until(key, b"first %d." % key)
        assert server.most == len(keys) == 2000
        for key in keys:
            session.send(session.core.send(key, b"second") + session.core.end(key))
        session.until_ended(*keys)
    assert session.taken == {key: b"first %d.second" % key for key in keys}


def test_a_pod_that_is_stopped_ends_its_connections_and_refuses_new_ones(client: Client) -> None:
    pod = client.run_pod()
    container = client.run(pod, command=("nc", "-ll", "-p", "8080", "-e", "cat"))
    with forwarding(client, pod, "SPDY") as session:
        key = connected(session, 8080, b"hello")
        client.stop(container)
        session.until_ended(key)
        client.stop_pod(pod)
        late = session.connect(8080)
        while not session.words[late]:
            session.step()
    assert (session.taken[key], b"no port of it can be forwarded" in session.words[late]) == (b"hello", True)


def connected(session: Session, port: int, words: bytes) -> int:
    """A connection that has echoed these words, as soon as somebody listens."""
    while True:
        key = session.connect(port)
        session.send(session.core.send(key, words))
        while words not in session.taken[key] and not session.words[key]:
            session.step()
        if not session.words[key]:
            return key


def test_a_megabyte_arrives_whole(client: Client, pod: str) -> None:
    data = bytes(range(256)) * 4096
    with forwarding(client, pod, "SPDY") as session:
        key = session.connect(8080)
        for start in range(0, len(data), 65536):
            session.send(session.core.send(key, data[start : start + 65536]))
            session.until(key, data[start : start + 65536][-1:])
        session.send(session.core.end(key))
        session.until_ended(key)
    assert session.taken[key] == data


def test_the_old_channels_carry_a_port_each(client: Client, pod: str) -> None:
    connection, answer, rest = opened(
        forward_url(client, pod, 8080, 9), ("v4.channel.k8s.io",), websocket=True
    )
    assert answer.status == 101
    messages, taken = Messages(client=True), []
    with connection:
        connection.sendall(messages.binary(b"\0hello"))
        data = rest
        while True:
            taken += [event.data for event in messages.receive(data) if isinstance(event, Piece)]
            if b"\0hello" in taken and any(message[:1] == b"\3" and len(message) > 3 for message in taken):
                break
            data = connection.recv(65536)
            assert data
    assert taken[:4] == [b"\0\x90\x1f", b"\1\x90\x1f", b"\2\t\0", b"\3\t\0"]


def test_a_pod_on_the_hosts_network_is_reached_too(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    with socket.create_server(("127.0.0.1", 0)) as server, forwarding(client, pod, "SPDY") as session:
        key = session.connect(server.getsockname()[1])
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"from the host")
        session.until_ended(key)
    assert session.taken[key] == b"from the host"
