"""`crisp` at a daemon whose streaming server speaks TLS: whose certificate it takes, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import h11
import pytest

from api.streaming.channels import SPDY, Channel, Ended, Wanted
from api.streaming.client import Opening, SpdyRemoteClient
from api.streaming.tls import self_made
from cli.streams import Trust, converse
from oci.errors import Internal
from tests.component.cli.person import command, crisp, environment
from tests.component.cli.test_streams import LIMIT, Terminal
from tests.component.cri.client import Client
from tests.component.streaming.authority import Authority
from tests.component.streaming.clients import PLAIN, Remote, exec_url
from tests.daemon import Daemon, running
from tests.images.registry import Registry

WORDS = ("sh", "-c", "stty size; read x; echo got $x; exit 4")


def written(path: Path) -> Path:
    """A key and a certificate for 127.0.0.1, in one file."""
    path.write_bytes(self_made("127.0.0.1", "node", datetime.datetime.now(datetime.UTC)))
    return path


def container_in(daemon: Daemon) -> tuple[Client, str]:
    client = Client(daemon)
    client.pull()
    return client, client.run(client.run_pod(cgroup_parent=""))


def work_at_a_terminal(daemon: Daemon, container: str) -> None:
    terminal = Terminal(daemon, "exec", "-it", container, *WORDS)
    terminal.until(b"33 111\r")
    terminal.type(b"word\r")
    terminal.until(b"got word")
    assert terminal.end() == 4


def converse_as(client: Client, container: str, trusting: ssl.SSLContext) -> Remote:
    """An exec of another client than `crisp`, over TLS to its end."""
    opening = Opening(exec_url(client, container, "echo", "hello"), ("v4.channel.k8s.io",), websocket=False)
    assert opening.tls
    plain = socket.create_connection((opening.host, opening.port), timeout=LIMIT)
    with trusting.wrap_socket(plain, server_hostname=opening.host) as connection:
        connection.sendall(opening.request())
        answer = None
        while answer is None:
            answer = opening.receive(connection.recv(65536))
        assert answer.status == 101, answer
        remote = Remote(connection, SpdyRemoteClient(PLAIN, SPDY["v4.channel.k8s.io"]))
        remote.send(remote.core.start())
        remote.hear(opening.rest())
        assert remote.end() == Ended(code=0)
    return remote


def test_a_given_pair_is_shown_and_taken_also_when_it_is_replaced(
    prepared_machine: None, image_registry: Registry, tmp_path: Path
) -> None:
    pair = written(tmp_path / "pair.pem")
    settings = {"streaming.tls": {"certificate": str(pair), "key": str(pair)}}
    with running(image_registry, overrides=settings) as daemon:
        client, container = container_in(daemon)
        assert urlsplit(exec_url(client, container, "true")).scheme == "https"
        said = converse_as(client, container, ssl.create_default_context(cafile=str(pair)))
        assert said.taken[Channel.STDOUT] == b"hello\n"
        work_at_a_terminal(daemon, container)
        written(tmp_path / "new.pem").replace(pair)
        work_at_a_terminal(daemon, container)


def test_only_clients_with_a_certificate_are_let_in_to_a_self_made_pair(
    prepared_machine: None, image_registry: Registry, tmp_path: Path
) -> None:
    ours = Authority(tmp_path / "ours")
    with running(image_registry, overrides={"streaming.tls": {"self_signed": True}}) as daemon:
        client, container = container_in(daemon)
        work_at_a_terminal(daemon, container)
        daemon.overrides = {"streaming.tls": {"self_signed": True, "client_ca": str(ours.certificate)}}
        daemon.restart()
        client.connect()
        refused = subprocess.run(
            command("exec", "-i", container, "true"),
            env=environment(daemon), capture_output=True, timeout=LIMIT, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert refused.returncode != 0
        assert b"streaming.tls.client_ca" in refused.stderr
        shown = ("--client-certificate", str(ours.client()))
        done = crisp(daemon, "exec", "-i", *shown, container, "echo", "let in")
        assert (done.returncode, done.stdout, done.stderr) == (0, "let in\n", "")
        theirs = Authority(tmp_path / "theirs").client()
        done = crisp(daemon, "exec", "-i", "--client-certificate", str(theirs), container, "true")
        assert done.returncode != 0
        assert f"{theirs} may not be of the authority" in done.stderr
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with pytest.raises((ssl.SSLError, ConnectionError, h11.RemoteProtocolError)):
            converse_as(client, container, trusting)
        trusting.load_cert_chain(ours.client())
        assert converse_as(client, container, trusting).taken[Channel.STDOUT] == b"hello\n"


def test_another_certificate_than_the_daemon_s_is_refused_before_the_url_is_told(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = b""
        with contextlib.suppress(ConnectionError):
            said = await reader.read(65536)
        heard.append(said)
        writer.transport.abort()

    async def story() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(written(tmp_path / "theirs.pem"))
        async with await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            ours = written(tmp_path / "ours.pem").read_text()
            told = ssl.PEM_cert_to_DER_cert(ours[ours.index("-----BEGIN CERTIFICATE") :])
            wanted = Wanted(stdin=False, stdout=True, stderr=True, tty=False)
            with pytest.raises(Internal, match="shows another certificate than the daemon's"):
                await converse(f"https://127.0.0.1:{port}/exec/secret", wanted, trust=Trust(server=told))
            while not heard:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(story(), LIMIT))
    assert heard == [b""]
