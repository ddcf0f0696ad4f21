"""The daemon is killed while clients talk through it: their connections end, and nothing else does."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from api.streaming.channels import Channel, Ended
from tests.component.cri.client import Client, pids
from tests.component.streaming.clients import (
    LIMIT,
    NEWEST,
    OLDEST,
    PLAIN,
    attach_url,
    conversation,
    exec_url,
    shell,
)
from tests.component.streaming.pods import echo, in_pod
from tests.component.streaming.test_bad_days import command
from tests.component.streaming.test_port_forward import forwarding
from tests.component.streaming.test_soak import SETTLING, descriptors
from tests.daemon import Daemon

CONTAINER = (
    "(i=0; while true; do echo tick $i; i=$((i+1)); usleep 5000; done) &"
    " while read line; do echo got $line; done; wait"
)
EXEC = "sleep 765432 & setsid sleep 765432 & (setsid sh -c 'sleep 765432 & exit'); echo ready; sleep 765432"


def test_a_daemon_that_is_killed_ends_connections_and_nothing_else(daemon: Daemon) -> None:
    client = Client(daemon)
    client.pull()
    pod = client.run_pod(cgroup_parent="")
    target = shell(client, tty=False, script=CONTAINER, pod=pod)
    log = next((daemon.directory / "logs").glob("*/shell.log"))
    with in_pod(client, pod, 8080, echo):
        first = client.pid(target)
        with contextlib.ExitStack() as stack:
            url = exec_url(client, target, "sh", "-c", EXEC)
            executing = stack.enter_context(conversation(url, NEWEST, PLAIN))
            attached = stack.enter_context(conversation(attach_url(client, target), OLDEST, PLAIN))
            forwarded = stack.enter_context(forwarding(client, pod, "tunnel"))
            executing.until(b"ready")
            attached.send(attached.core.input(b"one\n"))
            attached.until(b"got one\n")
            key = forwarded.connect(8080)
            forwarded.send(forwarded.core.send(key, b"one"))
            forwarded.until(key, b"one")
            started = [stack.enter_context(_watched(pid)) for pid in pids() if b"765432" in command(pid)]
            assert len(started) >= 4
            daemon.kill()
            for connection in (executing.connection, attached.connection, forwarded.connection):
                _await_end(connection)
            _await_ticks(log, _ticks(log)[-1] + 20)  # nobody is there, and the container goes on
            daemon.start()
            assert all(_ends(each) for each in started)
        client.connect()
        assert client.pid(target) == first
        _work_through_everything(client, pod, target, b"two")  # what is lazy is made
        before = descriptors(daemon)
        _work_through_everything(client, pod, target, b"three")
        _await_ticks(log, _ticks(log)[-1] + 20)
        until = time.monotonic() + SETTLING
        while descriptors(daemon) > before and time.monotonic() < until:
            time.sleep(0.05)
        assert descriptors(daemon) <= before
    seen = _ticks(log)
    assert seen == list(range(len(seen)))
    assert [line for line in _lines(log) if line.startswith("got")] == ["got one", "got two", "got three"]


def _work_through_everything(client: Client, pod: str, target: str, word: bytes) -> None:
    with conversation(exec_url(client, target, "echo", "again"), NEWEST, PLAIN) as executing:
        assert executing.end() == Ended(code=0)
        assert executing.taken[Channel.STDOUT] == b"again\n"
    with conversation(attach_url(client, target), OLDEST, PLAIN) as attached:
        attached.send(attached.core.input(word + b"\n"))
        attached.until(b"got " + word + b"\n")
    with forwarding(client, pod, "SPDY") as forwarded:
        key = forwarded.connect(8080)
        forwarded.send(forwarded.core.send(key, word))
        forwarded.until(key, word)


def _await_end(connection: socket.socket) -> None:
    """A TimeoutError of the connection if it does not."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65536):
            pass


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[int]:
    """A descriptor of the process."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _ends(process: int) -> bool:
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    return bool(waiting.poll(LIMIT * 1000))


def _lines(log: Path) -> list[str]:
    """What the container has said, of a log in CRI's format; a last line may be half written."""
    said, half = [], ""
    for line in log.read_text().rpartition("\n")[0].splitlines():
        _, _, tag, text = line.split(" ", 3)
        half += text
        if tag == "F":  # the monitor cuts a line where its buffer ends
            said.append(half)
            half = ""
    return said


def _ticks(log: Path) -> list[int]:
    return [int(line.removeprefix("tick ")) for line in _lines(log) if line.startswith("tick ")]


def _await_ticks(log: Path, number: int) -> None:
    until = time.monotonic() + LIMIT
    while _ticks(log)[-1] < number:
        assert time.monotonic() < until, f"the container stands still at {_ticks(log)[-1]}"
        time.sleep(0.05)
