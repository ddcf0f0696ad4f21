"""Clients that dawdle, flood, stay away or vanish, in each state of a connection; the server in this process.

With limits of its own, a fraction of a second, and sessions that tell what became of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from api.streaming import server as streaming
from api.streaming import spdy
from api.streaming.channels import SPDY, Channel, Ended, Failed, Wanted, read_last_word
from api.streaming.client import ForwardClient, Opening, Said, SpdyRemoteClient
from api.streaming.commands import RemoteCommand
from api.streaming.forwards import Forward
from api.streaming.server import Limits, StreamingServer
from api.streaming.upgrade import Kind
from api.streaming.wire import HIGH_WATER, READ, Wire
from shim.runtimes.driver import Output, Session, Size

V4 = SPDY["v4.channel.k8s.io"]
BOTH = Wanted(stdin=True, stdout=True, stderr=False, tty=False)


@dataclass
class Quiet:
    """A session that says nothing and never ends by itself."""

    outputs: frozenset[Output] = frozenset({Output.STDOUT})
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    stuck: bool = False  # takes no input

    async def read(self, output: Output) -> bytes:
        await self.closed.wait()
        return b""

    async def write(self, data: bytes) -> None:
        if self.stuck:
            await self.closed.wait()

    def end_input(self) -> None: ...
    async def resize(self, size: Size) -> None: ...

    async def wait(self) -> int:
        await self.closed.wait()
        return 0

    async def close(self) -> None:
        self.closed.set()


@dataclass
class Rig:
    server: StreamingServer
    session: Quiet
    opened: int = 0

    def exec(self) -> str:
        async def open_(_: Size | None) -> Session:
            self.opened += 1
            return self.session

        return self.server.url(Kind.EXEC, RemoteCommand(wanted=BOTH, open=open_))


def play(story: Callable[[Rig], Coroutine[Any, Any, None]], *, stuck: bool = False, **limits: float) -> None:
    async def run() -> None:
        before = asyncio.all_tasks()
        async with asyncio.timeout(50):
            given = Limits(idle=limits.get("idle", 60), creation=limits.get("creation", 60))
            server = StreamingServer(address="127.0.0.1", port=0, limits=given)
            await server.start()
            try:
                await story(Rig(server, Quiet(stuck=stuck)))
            finally:
                await server.stop()
        assert asyncio.all_tasks() == before

    asyncio.run(run())


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def upgraded(
    url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: str = V4.name
) -> None:
    opening = Opening(url, (protocol,), websocket=False)
    writer.write(opening.request())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")


async def end(reader: asyncio.StreamReader) -> bytes:
    """Everything to the end, however it comes."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            said += data
    return said


def word(said: bytes, core: SpdyRemoteClient) -> object:
    parts = [e.data for e in core.receive(said) if isinstance(e, Said) and e.channel is Channel.ERROR]
    return read_last_word(b"".join(parts))


def test_a_request_that_drips_in_is_cut_and_its_url_stays_good() -> None:
    async def story(rig: Rig) -> None:
        url = rig.exec()
        request = Opening(url, (V4.name,), websocket=False).request()
        async with connected(url) as (reader, writer):
            ended = asyncio.ensure_future(end(reader))
            for byte in request:
                writer.write(bytes((byte,)))
                await asyncio.wait([ended], timeout=0.05)
                if ended.done():
                    break
            assert await ended == b""
        async with connected(url) as (reader, writer):
            await upgraded(url, reader, writer)

    play(story, creation=0.4)


def test_streams_that_never_come_are_told_and_nothing_is_started() -> None:
    async def story(rig: Rig) -> None:
        url = rig.exec()
        async with connected(url) as (reader, writer):
            await upgraded(url, reader, writer)
            core = SpdyRemoteClient(BOTH, V4)
            frames = spdy.Framer()
            writer.write(frames.send(spdy.SynStream(stream=1, headers={"streamType": "error"})))
            outcome = word(await end(reader), core)
        assert outcome == Failed(message="not all streams came within 0.4 s")
        assert rig.opened == 0

    play(story, creation=0.4)


def test_a_connection_on_which_nothing_moves_is_cut_and_its_session_closed() -> None:
    async def story(rig: Rig) -> None:
        url = rig.exec()
        async with connected(url) as (reader, writer):
            await upgraded(url, reader, writer)
            writer.write(SpdyRemoteClient(BOTH, V4).start())
            await end(reader)
        await rig.session.closed.wait()

    play(story, idle=0.4)


@pytest.mark.parametrize("streams", [False, True], ids=["before the streams", "in the session"])
def test_a_flood_of_pings_whose_answers_are_not_taken_is_read_no_further(
    streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers: list[asyncio.StreamWriter] = []

    def made(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, idle: float) -> Wire:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writers.append(writer)
        return Wire(reader, writer, idle=idle)

    monkeypatch.setattr(streaming, "Wire", made)

    async def story(rig: Rig) -> None:
        url = rig.exec()
        async with connected(url) as (reader, writer):
            await upgraded(url, reader, writer)
            if streams:
                writer.write(SpdyRemoteClient(BOTH, V4).start())
                while not rig.opened:
                    await reader.read(65536)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            pings = spdy.Framer().send(spdy.Ping(id=1)) * 8192
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3):
                    for _ in range(160):  # 15 MiB, of which the kernel keeps half
                        writer.write(pings)
                        await writer.drain()
            assert writers[0].transport.get_write_buffer_size() <= HIGH_WATER + 2 * READ

    play(story)


def test_connections_that_say_nothing_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MAX_UNCLAIMED", 8)

    async def story(rig: Rig) -> None:
        url = rig.exec()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(connected(url))
            # The eight are accepted in their order, so this one is the ninth.
            reader, _ = await stack.enter_async_context(connected(url))
            assert await end(reader) == b""
        async with connected(url) as (reader, writer):
            request = Opening(url, (V4.name,), websocket=False).request()
            writer.write(request)
            answer = await reader.read(65536)
            assert b" 101 " in answer or answer == b""  # the eight may not be known to be gone yet

    play(story)


STATES = ("connected", "half a request", "upgraded", "some streams", "in the session", "input that waits")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["resets", "closes"])
def test_a_client_that_vanishes_leaves_nothing_in_any_state(state: str, how: str) -> None:
    async def story(rig: Rig) -> None:
        url = rig.exec()
        at = STATES.index(state)
        async with connected(url) as (reader, writer):
            if at == 1:
                writer.write(b"POST /exec/")
            if at >= 2:
                await upgraded(url, reader, writer)
            core = SpdyRemoteClient(BOTH, V4)
            start = core.start()
            if at == 3:
                writer.write(start[:20])
            if at >= 4:
                writer.write(start)
                while not rig.opened:
                    await reader.read(65536)
            if at == 5:
                writer.write(core.input(bytes(100_000)))
            await writer.drain()
            if how == "closes":
                writer.close()
                await writer.wait_closed()
            else:
                linger = writer.get_extra_info("socket")
                linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        clients = [task for task in asyncio.all_tasks() if task.get_name() == "streaming client"]
        if clients:
            await asyncio.wait(clients)
        assert rig.session.closed.is_set() == bool(rig.opened)

    play(story, stuck=state == "input that waits")


def test_a_server_that_stops_ends_its_sessions_and_takes_nobody_in() -> None:
    async def story(rig: Rig) -> None:
        url, second = rig.exec(), rig.exec()
        async with connected(url) as (reader, writer):
            await upgraded(url, reader, writer)
            writer.write(SpdyRemoteClient(BOTH, V4).start())
            while not rig.opened:
                await reader.read(65536)
            await rig.server.stop()
            assert rig.session.closed.is_set()
            await end(reader)
        with pytest.raises(ConnectionRefusedError):
            async with connected(second):
                pass

    play(story)


def test_a_forward_whose_client_vanishes_while_it_dials_is_given_up() -> None:
    async def story(rig: Rig) -> None:
        dialling, given_up = asyncio.Event(), asyncio.Event()

        async def dial(_: int) -> socket.socket:
            dialling.set()
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()
            raise AssertionError

        url = rig.server.url(Kind.FORWARD, Forward(ports=(), dial=dial))
        async with connected(url) as (reader, writer):
            await upgraded(url, reader, writer, "portforward.k8s.io")
            writer.write(ForwardClient().connect(80)[1])
            await dialling.wait()
        await given_up.wait()

    play(story)


def test_a_session_that_ends_is_told_although_the_client_has_half_closed() -> None:
    async def story(rig: Rig) -> None:
        url = rig.exec()
        async with connected(url) as (reader, writer):
            await upgraded(url, reader, writer)
            core = SpdyRemoteClient(BOTH, V4)
            writer.write(core.start() + core.end_input())
            while not rig.opened:
                await reader.read(65536)
            rig.session.closed.set()
            assert word(await end(reader), core) == Ended(code=0)

    play(story)
