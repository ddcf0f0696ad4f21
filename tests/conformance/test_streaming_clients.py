"""Exec, attach, cp and port-forward with the clients that people have: kubectl and crictl."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.streaming.channels import Wanted
from tests.component.cri.client import Client
from tests.component.streaming.clients import attach_url, exec_url, forward_url, shell
from tests.component.streaming.pods import echo, in_pod
from tests.daemon import Daemon
from tests.doubles.api_server import CONTAINER, ApiServer
from tests.doubles.relay import serving
from tests.parts.build import program
from tests.streams import recordings

LIMIT = 60.0
SCRIPT = "while read line; do echo out $line; echo err $line >&2; done; echo bye"


@dataclass
class Result:
    code: int
    out: bytes
    err: bytes


@dataclass
class Person:
    """Has a command line whose first words are given; `words` for the transport."""

    first: Sequence[str]
    environment: dict[str, str]

    def run(self, *words: str, given: bytes = b"") -> Result:
        done = subprocess.run(
            [*self.first, *words],
            env=self.environment,
            input=given,
            capture_output=True,
            check=False,
            timeout=LIMIT,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def at_a_terminal(self, *words: str, typed: bytes, until: bytes) -> bytes:
        """What a terminal shows, which types once the command has said something."""
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (33, 111))
        process = subprocess.Popen(
            [*self.first, *words],
            env=self.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        seen, sent = b"", False
        end = time.monotonic() + LIMIT
        try:
            with contextlib.suppress(OSError):  # EIO: the other side is closed
                while True:
                    if until in seen and not sent:
                        sent = os.write(master, typed) > 0
                    ready, _, _ = select.select([master], [], [], max(end - time.monotonic(), 0))
                    assert ready, f"nothing more after {seen!r}"
                    seen += os.read(master, 65536)
            assert process.wait(LIMIT) == 0, seen
        finally:
            process.kill()
            process.wait(LIMIT)
            os.close(master)
        return seen

    @contextlib.contextmanager
    def forwarding(self, *words: str) -> Iterator[int]:
        """The local port, once the command says that it listens."""
        process = subprocess.Popen(
            [*self.first, *words], env=self.environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("Forwarding from 127.0.0.1:"))
            yield int(line.split(":")[1].split(" ")[0])
        finally:
            process.terminate()
            process.communicate(timeout=LIMIT)


@pytest.fixture
def client(served: Daemon) -> Iterator[Client]:
    made = Client(served)
    made.pull()
    yield made
    served.remove_all_pods()
    served.remove_pod_groups()


@contextlib.contextmanager
def crictl(served: Daemon, name: str) -> Iterator[Person]:
    """`name` is what its recordings are called."""
    with recordings.recorded(served.endpoint, f"crictl-1.36.0-{name}") as endpoint:
        words = ("--config", "/dev/null", "--runtime-endpoint", endpoint, "--timeout", "60s")
        yield Person([str(program("cri-tools", "crictl")), *words], {"PATH": os.environ["PATH"]})


TRANSPORTS = pytest.mark.parametrize("transport", ["spdy", "websocket"])


@TRANSPORTS
def test_crictl_execs_attaches_and_forwards(client: Client, served: Daemon, transport: str) -> None:
    over = ("--transport", transport)
    pod = client.run_pod()
    id_ = shell(client, tty=False, script=SCRIPT, pod=pod, stdin_once=True)
    with crictl(served, transport) as person:
        script = "cat; echo err >&2; exit 3"
        said = person.run("exec", *over, "-i", id_, "sh", "-c", script, given=b"hello\n")
        assert (said.code, said.out) == (1, b"hello\n")
        assert b"err\n" in said.err
        assert b"exit code 3" in said.err
        with in_pod(client, pod, 8080, echo), person.forwarding("port-forward", *over, pod, ":8080") as port:
            assert echoed(port) == b"hello"
        said = person.run("attach", *over, "-i", id_, given=b"one\ntwo\n")
    assert (said.code, said.out, said.err) == (0, b"out one\nout two\nbye\n", b"err one\nerr two\n")


@TRANSPORTS
def test_crictl_has_a_terminal(client: Client, served: Daemon, transport: str) -> None:
    over = ("--transport", transport)
    id_ = shell(client, tty=True, script="read line; echo got $line")
    with crictl(served, f"{transport}-terminal") as person:
        words = ("sh", "-c", "tty; read x; echo $x $x")
        seen = person.at_a_terminal("exec", *over, "-it", id_, *words, typed=b"twice\r", until=b"/dev/pts")
        assert b"twice twice" in seen
        seen = person.at_a_terminal("attach", *over, "-it", id_, typed=b"word\r", until=b"")
    assert b"got word" in seen


def echoed(port: int) -> bytes:
    """Through a local port there and back, with both halves closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        said = b""
        while data := connection.recv(100):
            said += data
    return said


@dataclass
class Cluster:
    """kubectl, the API server that it talks to, and the container behind it."""

    kubectl: Person
    server: ApiServer


@contextlib.contextmanager
def cluster(
    client: Client, pod: str, id_: str, home: Path, transport: str, *, tty: bool
) -> Iterator[Cluster]:
    def streaming(kind: str, query: dict[str, list[str]]) -> str:
        if kind == "portforward":
            return forward_url(client, pod, *(int(port) for port in query.get("ports", [])))
        asked = {name: query.get(name) == ["true"] for name in ("stdin", "stdout", "stderr", "tty")}
        wanted = Wanted(**asked)
        if kind == "exec":
            assert query["container"] == [CONTAINER]
            return exec_url(client, id_, *query["command"], wanted=wanted)
        return attach_url(client, id_, wanted=wanted)

    websockets = "true" if transport == "websocket" else "false"
    with serving(ApiServer(pod="web", streaming=streaming, tty=tty)) as server:
        kubectl = Person(
            [str(program("kubectl", "kubectl")), "--server", server.url, "--cache-dir", str(home / "cache")],
            {
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "KUBECONFIG": "/dev/null",
                "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets,
                "KUBECTL_PORT_FORWARD_WEBSOCKETS": websockets,
            },
        )
        yield Cluster(kubectl, server)
    if recordings.RECORD in os.environ:
        name = f"kubectl-1.37.2-{transport}{'-terminal' if tty else ''}"
        recordings.write(Path(os.environ[recordings.RECORD]), name, server.passed)


SPOKEN = {
    "spdy": {"v4.channel.k8s.io", "portforward.k8s.io"},
    "websocket": {"v5.channel.k8s.io", "SPDY/3.1+portforward.k8s.io"},
}


@TRANSPORTS
def test_kubectl_execs_copies_forwards_and_attaches(client: Client, tmp_path: Path, transport: str) -> None:
    pod = client.run_pod()
    id_ = shell(client, tty=False, script=SCRIPT, pod=pod, stdin_once=True)
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(3_000_000))
    with cluster(client, pod, id_, tmp_path, transport, tty=False) as made:
        kubectl = made.kubectl
        said = kubectl.run(
            "exec", "-i", "web", "--", "sh", "-c", "cat; echo err >&2; exit 3", given=b"hello\n"
        )
        assert (said.code, said.out) == (3, b"hello\n")
        assert said.err == b"err\ncommand terminated with exit code 3\n"
        for words in ((str(sent), "default/web:/tmp/there"), ("default/web:/tmp/there", str(back))):
            said = kubectl.run("cp", *words)
            assert said.code == 0, said.err
        assert back.read_bytes() == sent.read_bytes()
        with in_pod(client, pod, 8080, echo), kubectl.forwarding("port-forward", "web", ":8080") as port:
            assert [echoed(port) for _ in range(3)] == [b"hello"] * 3
        said = kubectl.run("attach", "-i", "web", given=b"one\ntwo\n")
        assert (said.code, said.out) == (0, b"out one\nout two\nbye\n"), said.err
        assert said.err.endswith(b"err one\nerr two\n")
    assert {(one.status, one.protocol) for one in made.server.passed} == {
        (101, protocol) for protocol in SPOKEN[transport]
    }


@TRANSPORTS
def test_kubectl_has_a_terminal(client: Client, tmp_path: Path, transport: str) -> None:
    pod = client.run_pod()
    id_ = shell(client, tty=True, script="read line; echo got $line", pod=pod)
    with cluster(client, pod, id_, tmp_path, transport, tty=True) as made:
        seen = made.kubectl.at_a_terminal(
            "exec",
            "-it",
            "web",
            "--",
            "sh",
            "-c",
            "tty; read x; echo $x $x",
            typed=b"twice\r",
            until=b"/dev/pts",
        )
        assert b"twice twice" in seen
        seen = made.kubectl.at_a_terminal("attach", "-it", "web", typed=b"word\r", until=b"")
        assert b"got word" in seen
    assert {one.protocol for one in made.server.passed} == SPOKEN[transport] - {
        "portforward.k8s.io",
        "SPDY/3.1+portforward.k8s.io",
    }
