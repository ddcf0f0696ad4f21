"""`crisp exec -it`, `attach` and `port-forward` as a person uses them."""

from __future__ import annotations

import os
import pty
import re
import select
import socket
import subprocess
import termios
import time

import pytest

from tests.component.cli.person import command, environment, said
from tests.component.cri.client import Client
from tests.component.streaming.clients import shell
from tests.daemon import Daemon

LIMIT = 30.0


class Terminal:
    """A command at a terminal of its own, which a person reads and types at."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (33, 111))
        self.process = subprocess.Popen(
            command(*arguments),
            env=environment(daemon),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def until(self, words: bytes) -> None:
        end = time.monotonic() + LIMIT
        while words not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(end - time.monotonic(), 0))
            assert ready, f"{words!r} did not come, only {self.seen!r}"
            self.seen += os.read(self.master, 65536)

    def end(self) -> int:
        status = self.process.wait(LIMIT)
        os.close(self.master)
        return status


@pytest.fixture
def client(served: Daemon) -> Client:
    made = Client(served)
    made.pull()
    return made


def run_pod(client: Client) -> str:
    return client.run_pod(cgroup_parent="")


def test_exec_passes_input_and_output_and_the_status(served: Daemon, client: Client) -> None:
    container = client.run(run_pod(client))
    script = "cat; echo err >&2; exit 9"
    done = subprocess.run(
        command("exec", "-i", container, "sh", "-c", script),
        env=environment(served), input=b"hello\n" * 50_000, capture_output=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout == b"hello\n" * 50_000, done.stderr) == (9, True, b"err\n")


def test_exec_at_a_terminal_is_raw_and_sized(served: Daemon, client: Client) -> None:
    container = client.run(run_pod(client))
    terminal = Terminal(
        served, "exec", "-it", container, "sh", "-c", "stty size; read x; echo got $x; exit 4"
    )
    terminal.until(b"33 111\r")
    terminal.type(b"word\r")
    terminal.until(b"got word")
    assert terminal.end() == 4


def test_attach_types_into_the_container_and_leaves_it_running(served: Daemon, client: Client) -> None:
    container = shell(client, tty=True, script="while read x; do echo got $x; done", pod=run_pod(client))
    terminal = Terminal(served, "attach", container)
    terminal.type(b"word\r")
    terminal.until(b"got word")
    terminal.type(b"\x10\x11")
    terminal.until(b"goes on")
    assert terminal.end() == 0
    assert client.exec(container, "echo", "alive") == "alive\n"


def test_a_forwarded_port_leads_into_the_pod(served: Daemon, client: Client) -> None:
    pod = run_pod(client)
    serve = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 127.0.0.1:80 -h /www"
    container = client.run(pod, command=("sh", "-c", serve))
    client.exec(container, "sh", "-c", "until wget -q -O - http://127.0.0.1/; do usleep 10000; done")
    forwarding = subprocess.Popen(
        command("port-forward", pod, "0:80"),
        env=environment(served),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert forwarding.stderr is not None
    try:
        found = re.search(rb"127\.0\.0\.1:(\d+) -> 80", forwarding.stderr.readline())
        assert found is not None
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", int(found[1])), timeout=LIMIT) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b""
                while data := connection.recv(65536):
                    answer += data
            assert answer.endswith(b"hello\n")
    finally:
        forwarding.send_signal(2)
        assert forwarding.wait(LIMIT) == 130
        forwarding.stderr.close()


def test_exec_of_a_missing_program_says_so(served: Daemon, client: Client) -> None:
    container = client.run(run_pod(client))
    done = subprocess.run(
        command("exec", "-i", container, "nonesuch"),
        env=environment(served), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "nonesuch" in done.stderr
    assert said(served, "exec", container, "true") == ""
