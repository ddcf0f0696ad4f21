"""TLS of the streaming server: whose key pair, whose clients, which versions, and files that change."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import pytest

from api.streaming.channels import SPDY, WEBSOCKET, Channel, Ended, Version, Wanted, read_last_word
from api.streaming.client import Opening, Said, SpdyRemoteClient, WebSocketRemoteClient
from api.streaming.commands import RemoteCommand
from api.streaming.server import Limits, StreamingServer
from api.streaming.tls import LIFE, Tls, TlsFiles, self_made
from api.streaming.upgrade import Kind
from oci.errors import BadInput
from shim.runtimes.driver import Output, Session, Size

OUT = Wanted(stdin=False, stdout=True, stderr=False, tty=False)
SELF_MADE = TlsFiles(certificate=None, key=None, client_ca=None)


def run(story: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await story

    asyncio.run(limited())


@dataclass
class Clock:
    now: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def __call__(self) -> datetime.datetime:
        return self.now


class Zeros:
    """A session that says so many zeros, and ends well."""

    outputs = frozenset({Output.STDOUT})

    def __init__(self, count: int) -> None:
        self._left = count

    async def read(self, output: Output) -> bytes:
        piece = bytes(min(self._left, 100_000))
        self._left -= len(piece)
        return piece

    async def write(self, data: bytes) -> None: ...
    def end_input(self) -> None: ...
    async def resize(self, size: Size) -> None: ...
    async def close(self) -> None: ...
    async def wait(self) -> int:
        return 0


@contextlib.asynccontextmanager
async def serving(files: TlsFiles, clock: Clock | None = None, creation: float = 30) -> AsyncIterator[Any]:
    tls = Tls(files, address="127.0.0.1", today=clock or Clock())
    limits = Limits(idle=60, creation=creation)
    server = StreamingServer(address="127.0.0.1", port=0, limits=limits, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def converse(
    server: StreamingServer,
    context: ssl.SSLContext,
    version: Version = SPDY["v4.channel.k8s.io"],
    size: int = 5,
) -> tuple[int, object, bytes]:
    """Bytes of output, the last word, and the certificate that the server showed."""

    async def open_(_: Size | None) -> Session:
        return Zeros(size)

    opening = Opening(
        server.url(Kind.EXEC, RemoteCommand(wanted=OUT, open=open_)),
        (version.name,),
        websocket=version.name in WEBSOCKET and version.name not in SPDY,
    )
    assert opening.tls
    reader, writer = await asyncio.open_connection(opening.host, opening.port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    core: Any = (SpdyRemoteClient if version.name in SPDY else WebSocketRemoteClient)(OUT, version)
    taken = {channel: bytearray() for channel in Channel}
    try:
        writer.write(opening.request())
        answer = None
        while answer is None:
            answer = opening.receive(await reader.read(65536))
        assert answer.status == 101, answer
        writer.write(core.start())
        data = opening.rest()
        while True:
            for event in core.receive(data):
                if isinstance(event, Said):
                    taken[event.channel] += event.data
            data = await reader.read(65536)
            if not data:
                break
    finally:
        writer.transport.abort()
    return len(taken[Channel.STDOUT]), read_last_word(bytes(taken[Channel.ERROR])), shown


def trusting(*pems: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for pem in pems:
        context.load_verify_locations(pem)
    return context


def blind() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, in one file."""
    return written(tmp_path / "pair.pem")


def written(path: Path) -> Path:
    path.write_bytes(self_made("127.0.0.1", "node", datetime.datetime.now(datetime.UTC)))
    return path


def of(pair: Path, **more: Any) -> TlsFiles:
    return TlsFiles(**{"certificate": pair, "key": pair, "client_ca": None, **more})


@pytest.mark.parametrize("version", [SPDY["v4.channel.k8s.io"], WEBSOCKET["v5.channel.k8s.io"]])
def test_a_client_that_trusts_the_given_pair_has_everything_to_the_last_word(
    pair: Path, version: Version
) -> None:
    async def story() -> None:
        async with serving(of(pair)) as server:
            said = await converse(server, trusting(pair), version, 20_000_000)
            assert said[:2] == (20_000_000, Ended(code=0))

    run(story())


def test_a_client_that_does_not_trust_it_goes_away_and_the_next_one_is_served(pair: Path) -> None:
    async def story() -> None:
        async with serving(of(pair)) as server:
            with pytest.raises(ssl.SSLCertVerificationError):
                await converse(server, trusting())
            assert (await converse(server, trusting(pair)))[1] == Ended(code=0)

    run(story())


def test_files_that_are_replaced_are_used_from_the_next_connection_on(pair: Path, tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(of(pair)) as server:
            first = (await converse(server, blind()))[2]
            written(tmp_path / "new").replace(pair)
            second = (await converse(server, trusting(pair)))[2]
            pair.write_text("nonsense")  # half of a change: what was there before goes on
            third = (await converse(server, blind()))[2]
            pair.unlink()
            fourth = (await converse(server, blind()))[2]
            assert first != second
            assert second == third == fourth
            written(pair)
            assert (await converse(server, trusting(pair)))[2] != second

    run(story())


def test_a_pair_of_its_own_names_the_address_and_is_made_anew_before_it_ends() -> None:
    async def story() -> None:
        clock = Clock()
        async with serving(SELF_MADE, clock) as server:
            first, again = [(await converse(server, blind()))[2] for _ in range(2)]
            clock.now += LIFE * 0.7
            later = (await converse(server, blind()))[2]
            assert first == again != later
            trust = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(later))
            trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
            with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
                await converse(server, trust)  # made by a clock that is ahead; its name is right
            trust = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(first))
            clock.now -= LIFE * 0.7
        async with serving(SELF_MADE) as server:
            own = (await converse(server, blind()))[2]
            trust = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(own))
            assert (await converse(server, trust))[1] == Ended(code=0)

    run(story())


def test_only_clients_of_the_given_authority_are_let_in(pair: Path, tmp_path: Path) -> None:
    from tests.component.streaming.authority import Authority

    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")

    async def story() -> None:
        async with serving(of(pair, client_ca=ours.certificate)) as server:
            with_ours, with_theirs = trusting(pair), trusting(pair)
            with_ours.load_cert_chain(ours.client())
            with_theirs.load_cert_chain(theirs.client())
            for context in (trusting(pair), with_theirs):
                with pytest.raises((ssl.SSLError, ConnectionError, h11.RemoteProtocolError)):
                    await converse(server, context)
            assert (await converse(server, with_ours))[1] == Ended(code=0)

    run(story())


def test_an_older_version_than_the_oldest_is_refused(pair: Path) -> None:
    async def story() -> None:
        old = trusting(pair)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serving(of(pair)) as server:
            assert (await converse(server, old))[1] == Ended(code=0)
        async with serving(of(pair, minimum="1.3")) as server:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await converse(server, old)
            assert (await converse(server, trusting(pair)))[1] == Ended(code=0)

    run(story())


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
def test_who_does_not_get_through_the_handshake_is_closed_in_time(pair: Path, said: bytes) -> None:
    async def story() -> None:
        async with serving(of(pair), creation=0.5) as server:
            port = server.url(Kind.EXEC, None).split(":")[2].partition("/")[0]
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
            writer.write(said)
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in await reader.read()
            writer.transport.abort()

    run(story())


def test_files_that_cannot_be_used_are_named_at_the_start(pair: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other.pem")
    text = pair.read_text()
    certificate = tmp_path / "only.crt"
    certificate.write_text(text[text.index("-----BEGIN CERTIFICATE") :])

    def refused(files: TlsFiles) -> str:
        with pytest.raises(BadInput) as error:
            Tls(files, address="127.0.0.1", today=Clock()).context()
        return error.value.message

    gone = tmp_path / "gone.pem"
    assert (
        refused(of(gone)),
        refused(of(pair, key=gone)),
        refused(of(certificate, key=other)),
        refused(of(pair, client_ca=gone)),
    ) == (
        f"streaming.tls.certificate {gone}: does not exist or cannot be read",
        f"streaming.tls.key {gone}: does not exist or cannot be read",
        f"streaming.tls: certificate {certificate} with key {other}: key values mismatch",
        f"streaming.tls.client_ca {gone}: No such file or directory",
    )
