"""Every dialect does what it can: exec and attach, with a terminal and without."""

from __future__ import annotations

import pytest

from api.streaming.channels import Channel, Ended
from tests.component.cri.client import Client
from tests.component.streaming.clients import (
    DIALECTS,
    NEWEST,
    PLAIN,
    TTY,
    attach_url,
    conversation,
    exec_url,
    shell,
)


def ended(dialect: str, code: int) -> Ended | None:
    """How a command's end is told: old versions say nothing of success and only words of failure."""
    if DIALECTS[dialect][1].status:
        return Ended(code=code)
    return Ended() if code == 0 else None


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_exec_without_a_terminal(client: Client, container: str, dialect: str) -> None:
    script = "read line; echo out $line; echo err $line >&2; exit 7"
    with conversation(exec_url(client, container, "sh", "-c", script), dialect, PLAIN) as remote:
        remote.send(remote.core.input(b"hello\n"))
        outcome = remote.end()
    assert (remote.taken[Channel.STDOUT], remote.taken[Channel.STDERR]) == (b"out hello\n", b"err hello\n")
    if ended(dialect, 7) is not None:
        assert outcome == ended(dialect, 7)
    else:
        assert remote.taken[Channel.ERROR] == b"command terminated with exit code 7"


@pytest.mark.parametrize("dialect", [name for name, (_, version) in DIALECTS.items() if version.close])
def test_exec_with_the_end_of_its_input(client: Client, container: str, dialect: str) -> None:
    with conversation(exec_url(client, container, "cat"), dialect, PLAIN) as remote:
        remote.send(remote.core.input(b"x" * 300_000) + remote.core.end_input())
        outcome = remote.end()
    assert (len(remote.taken[Channel.STDOUT]), outcome) == (300_000, ended(dialect, 0))


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_exec_with_a_terminal(client: Client, container: str, dialect: str) -> None:
    script = "stty size; read line; echo out $line; echo err >&2"
    resizable = DIALECTS[dialect][1].resize
    url = exec_url(client, container, "sh", "-c", script, wanted=TTY)
    with conversation(url, dialect, TTY) as remote:
        if resizable:
            remote.send(remote.core.resize(101, 33))
        remote.until(b"\n")
        remote.send(remote.core.input(b"hello\n"))
        outcome = remote.end()
    # A line that comes before runc has set its terminal up has one carriage return more.
    lines = remote.taken[Channel.STDOUT].decode().replace("\r", "").split("\n")
    assert not resizable or lines[0] == "33 101"
    assert lines[1:] == ["hello", "out hello", "err", ""]
    assert outcome == ended(dialect, 0)


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_attach_without_a_terminal(client: Client, dialect: str) -> None:
    id_ = shell(client, tty=False, script="read line; echo out $line; echo err $line >&2; exit 3")
    with conversation(attach_url(client, id_), dialect, PLAIN) as remote:
        remote.send(remote.core.input(b"hello\n"))
        outcome = remote.end()
    assert (remote.taken[Channel.STDOUT], remote.taken[Channel.STDERR]) == (b"out hello\n", b"err hello\n")
    assert outcome == ended(dialect, 0)  # an attached client is not told the code


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_attach_with_a_terminal(client: Client, dialect: str) -> None:
    id_ = shell(client, tty=True, script="read line; stty size; echo out $line; read line")
    resizable = DIALECTS[dialect][1].resize
    with conversation(attach_url(client, id_, wanted=TTY), dialect, TTY) as remote:
        if resizable:
            remote.send(remote.core.resize(90, 20))
        remote.send(remote.core.input(b"hello\n"))
        said = remote.until(b"out hello\r\n").decode().replace("\r", "")
        remote.send(remote.core.input(b"\n"))
        assert remote.end() == ended(dialect, 0)
    assert said.startswith("hello\n")
    assert not resizable or "20 90\n" in said


def test_the_end_of_the_input_is_the_containers_where_it_has_it_once(client: Client) -> None:
    id_ = shell(client, tty=False, script="cat; echo done", stdin_once=True)
    with conversation(attach_url(client, id_), NEWEST, PLAIN) as remote:
        remote.send(remote.core.input(b"hello\n") + remote.core.end_input())
        assert remote.end() == Ended(code=0)
    assert remote.taken[Channel.STDOUT] == b"hello\ndone\n"
