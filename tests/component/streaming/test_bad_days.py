"""Bad input and bad days: the right status, nothing left behind, nobody else hurt."""

from __future__ import annotations

import socket
import struct
import time
from urllib.parse import urlsplit

import grpc
import pytest

from api.proto import cri_pb2
from api.streaming.channels import Channel, Ended, Failed, Wanted
from api.streaming.client import Opening, SpdyRemoteClient, WebSocketRemoteClient
from tests.component.cri.client import Client, pids
from tests.component.streaming.clients import (
    DIALECTS,
    LIMIT,
    NEWEST,
    OLDEST,
    PLAIN,
    TTY,
    Remote,
    attach_url,
    conversation,
    exec_url,
    forward_url,
    opened,
    shell,
)
from tests.daemon import Daemon
from tests.machine import PATIENCE

SPDY = ("v4.channel.k8s.io",)


def refused(url: str, protocols: tuple[str, ...] = SPDY, *, websocket: bool = False) -> int:
    connection, answer, _ = opened(url, protocols, websocket=websocket)
    with connection:
        assert connection.recv(1) == b""  # and then it is closed
    return answer.status


def raw(url: str, data: bytes) -> bytes:
    """What the server says to these bytes, to the end."""
    parts = urlsplit(url)
    said = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=LIMIT) as connection:
        connection.sendall(data)
        while data := connection.recv(65536):
            said += data
    return said


def test_a_url_is_good_once_and_for_its_kind(client: Client, container: str) -> None:
    url = exec_url(client, container, "true")
    assert refused(url.replace("/exec/", "/attach/")) == 404
    assert refused(url[:-1]) == 404
    with conversation(url, OLDEST, PLAIN) as remote:
        assert remote.end() == Ended(code=0)
    assert refused(url) == 404


def test_a_refused_handshake_leaves_the_url_good(client: Client, container: str) -> None:
    url = exec_url(client, container, "true")
    assert refused(url, ("v9.channel.k8s.io",)) == 403
    assert refused(url, ()) == 400
    assert refused(url, ("v9.channel.k8s.io",), websocket=True) == 403
    with conversation(url, NEWEST, PLAIN) as remote:
        assert remote.end() == Ended(code=0)


def test_what_is_no_request_is_answered_and_closed(client: Client, container: str) -> None:
    url = exec_url(client, container, "true")
    assert raw(url, b"\x16\x03\x01\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(url, b"GET /" + b"x" * 100_000).startswith(b"HTTP/1.1 431 ")
    assert raw(url, b"PUT " + urlsplit(url).path.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n").startswith(
        b"HTTP/1.1 405 "
    )


def test_streams_of_nonsense_end_the_connection_and_start_nothing(client: Client, container: str) -> None:
    opening = Opening(exec_url(client, container, "sleep", "987654"), SPDY, websocket=False)
    assert b" 101 " in raw(f"http://{opening.host}:{opening.port}/", opening.request() + bytes(8))
    assert not [pid for pid in pids() if b"987654" in command(pid)]


def command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - one read, no object
            return file.read()
    except OSError:
        return b""


@pytest.mark.parametrize("dialect", [NEWEST, OLDEST])
@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_a_client_that_vanishes_takes_its_process_with_it(
    client: Client, container: str, dialect: str, tty: bool
) -> None:
    wanted = Wanted(stdin=True, stdout=True, stderr=not tty, tty=tty)
    script = "sleep 876543 & setsid sleep 876543 & echo ready; sleep 876543"
    with conversation(exec_url(client, container, "sh", "-c", script, wanted=wanted), dialect, wanted) as one:
        one.until(b"ready")
    with conversation(exec_url(client, container, "sh", "-c", WAIT_FOR_NONE), dialect, PLAIN) as two:
        assert two.end() == Ended(code=0)


WAIT_FOR_NONE = "for i in $(seq 500); do ps | grep -q '[s]leep 876543' || exit 0; usleep 50000; done; exit 1"


def test_a_client_that_vanishes_while_its_input_waits_is_noticed(client: Client, container: str) -> None:
    url = exec_url(client, container, "sleep", "876543")
    with conversation(url, NEWEST, PLAIN) as remote:
        remote.connection.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while True:
                remote.send(remote.core.input(bytes(32768)))
        # Gone as a machine is that lost power: a polite end would wait, unseen, behind a window that is full.
        remote.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with conversation(exec_url(client, container, "sh", "-c", WAIT_FOR_NONE), NEWEST, PLAIN) as two:
        assert two.end() == Ended(code=0)


def test_a_slow_client_holds_its_own_process_back_and_loses_nothing(client: Client, container: str) -> None:
    script = "dd if=/dev/zero bs=1M count=64 2>/dev/null; echo done >&2"
    with conversation(exec_url(client, container, "sh", "-c", script), NEWEST, PLAIN) as remote:
        assert client.exec(container, "echo", "unharmed") == "unharmed\n"
        assert remote.end() == Ended(code=0)
    assert (len(remote.taken[Channel.STDOUT]), remote.taken[Channel.STDERR]) == (64 << 20, b"done\n")


@pytest.mark.parametrize("dialect", [NEWEST, OLDEST])
def test_a_program_that_is_missing_is_told(client: Client, container: str, dialect: str) -> None:
    with conversation(exec_url(client, container, "nonesuch"), dialect, PLAIN) as remote:
        outcome = remote.end()
    assert isinstance(outcome, Failed)
    assert "nonesuch" in outcome.message
    assert remote.taken[Channel.STDERR] == b""


def test_a_container_that_ends_takes_its_sessions_with_it(client: Client) -> None:
    id_ = shell(client, tty=False, script="read line; exit 3")
    with conversation(exec_url(client, id_, "sh", "-c", "echo ready; sleep 1000"), NEWEST, PLAIN) as remote:
        remote.until(b"ready")
        client.stop(id_)
        assert remote.end() == Ended(code=137)
    with pytest.raises(grpc.RpcError) as refusal:
        exec_url(client, id_, "true")
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
@pytest.mark.parametrize("dialect", [NEWEST, OLDEST])
def test_an_attach_ends_within_a_second_of_its_container(client: Client, dialect: str, tty: bool) -> None:
    id_ = shell(client, tty=tty, script="echo up; read line; echo $line; exec sleep 1000")
    wanted = TTY if tty else PLAIN
    with conversation(attach_url(client, id_, wanted=wanted), dialect, wanted) as remote:
        remote.send(remote.core.input(b"word\n"))
        remote.until(b"word")
        client.stop(id_)
        stopped = time.monotonic()
        assert remote.end() == Ended(code=0)
        assert time.monotonic() - stopped < 1 * PATIENCE


@pytest.mark.parametrize("dialect", [NEWEST, OLDEST])
def test_a_container_that_dies_while_the_streams_are_awaited_is_told(client: Client, dialect: str) -> None:
    id_ = shell(client, tty=False, script="read line")
    websocket, version = DIALECTS[dialect]
    connection, answer, rest = opened(exec_url(client, id_, "true"), (version.name,), websocket=websocket)
    with connection:
        assert answer.status == 101
        client.stop(id_)
        core = (WebSocketRemoteClient if websocket else SpdyRemoteClient)(PLAIN, version)
        remote = Remote(connection, core)
        remote.send(core.start())
        remote.hear(rest)
        outcome = remote.end()
    assert isinstance(outcome, Failed)


def test_a_container_that_is_gone_when_the_client_comes_is_told(client: Client) -> None:
    id_ = shell(client, tty=False, script="read line")
    url = exec_url(client, id_, "true")
    client.stop(id_)
    client.remove(id_)
    with conversation(url, NEWEST, PLAIN) as remote:
        outcome = remote.end()
    assert isinstance(outcome, Failed)
    assert "does not exist" in outcome.message


def test_requests_that_cannot_be_are_refused_before_there_is_a_url(client: Client, container: str) -> None:
    def code(method: str, request: object) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as refusal:
            client.call(method, request)
        found: grpc.StatusCode = refusal.value.code()
        return found

    absent = "f" * 64
    assert {
        "exec": code("Exec", cri_pb2.ExecRequest(container_id=absent, cmd=["true"], stdout=True)),
        "attach": code("Attach", cri_pb2.AttachRequest(container_id=absent, stdout=True)),
        "forward": code("PortForward", cri_pb2.PortForwardRequest(pod_sandbox_id=absent)),
        "terminal": code("Attach", cri_pb2.AttachRequest(container_id=container, stdout=True, tty=True)),
    } == {
        "exec": grpc.StatusCode.NOT_FOUND,
        "attach": grpc.StatusCode.NOT_FOUND,
        "forward": grpc.StatusCode.NOT_FOUND,
        "terminal": grpc.StatusCode.INVALID_ARGUMENT,
    }


def test_tokens_and_what_passes_are_not_logged(client: Client, container: str, served: Daemon) -> None:
    url = exec_url(client, container, "sh", "-c", "read secret; echo $secret")
    with conversation(url, NEWEST, PLAIN) as remote:
        remote.send(remote.core.input(b"hunter2\n"))
        assert remote.end() == Ended(code=0)
    forwarded = forward_url(client, next(iter(client.pods)))
    for secret in (url.rpartition("/")[2], forwarded.rpartition("/")[2], "hunter2"):
        assert secret not in served.log
