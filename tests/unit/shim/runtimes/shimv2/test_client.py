"""The calling end of ttrpc over a pair of sockets: calls side by side, limits, losses, odd servers."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator

import pytest
from google.protobuf import empty_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from oci.errors import (
    Absent,
    BadInput,
    Busy,
    CrispError,
    Deadline,
    Duplicate,
    Full,
    Internal,
    Unsupported,
    WrongState,
)
from shim.runtimes.shimv2.proto import task_pb2, ttrpc_pb2
from shim.runtimes.shimv2.ttrpc import frames
from shim.runtimes.shimv2.ttrpc.client import Client, ConnectionLost
from shim.runtimes.shimv2.ttrpc.frames import BadFrame, Decoder, Frame, Oversized, encode

SERVICE = "containerd.task.v3.Task"


class Server:
    """The other end, moved by hand."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    async def request(self) -> tuple[Frame, ttrpc_pb2.Request]:
        loop = asyncio.get_running_loop()
        while not self._frames:
            data = await loop.sock_recv(self.connection, 65536)
            assert data, "the client hung up"
            self._frames += self._decoder.receive(data)
        frame = self._frames.pop(0)
        return frame, ttrpc_pb2.Request.FromString(frame.payload)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.connection, data)

    async def answer(self, frame: Frame, pid: int) -> None:
        await self.send(answer(frame.stream, pid))

    async def refuse(self, frame: Frame, code: int, words: str) -> None:
        response = ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=code, message=words))
        await self.send(response_frame(frame.stream, response.SerializeToString()))


def response_frame(stream: int, payload: bytes) -> bytes:
    return encode(Frame(stream=stream, type=frames.RESPONSE, payload=payload))


def answer(stream: int, pid: int) -> bytes:
    payload = task_pb2.StartResponse(pid=pid).SerializeToString()
    return response_frame(stream, ttrpc_pb2.Response(payload=payload).SerializeToString())


def talk(
    story: Callable[[Client, Server], Awaitable[None]], *, lost: Callable[[], None] | None = None
) -> None:
    async def whole() -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        client = Client(ours, name="shim of x", metadata={"containerd-namespace-ttrpc": "crisp"}, lost=lost)
        try:
            async with asyncio.timeout(20):
                await story(client, Server(theirs))
        finally:
            client.close()
            theirs.close()

    asyncio.run(whole(), debug=True)


async def start(client: Client, id_: str = "x", *, timeout: float | None = None) -> int:
    request = task_pb2.StartRequest(id=id_)
    return (await client.call(SERVICE, "Start", request, task_pb2.StartResponse, timeout=timeout)).pid


def test_a_call_says_what_it_is_and_whose() -> None:
    async def story(client: Client, server: Server) -> None:
        call = asyncio.ensure_future(start(client, "one", timeout=2.5))
        frame, request = await server.request()
        assert (frame.stream, frame.type, frame.flags) == (1, frames.REQUEST, 0)
        assert (request.service, request.method, request.timeout_nano) == (SERVICE, "Start", 2_500_000_000)
        assert [(pair.key, pair.value) for pair in request.metadata] == [
            ("containerd-namespace-ttrpc", "crisp")
        ]
        assert task_pb2.StartRequest.FromString(request.payload).id == "one"
        await server.answer(frame, 7)
        assert await call == 7

    talk(story)


def test_calls_run_side_by_side_and_are_answered_in_any_order() -> None:
    async def story(client: Client, server: Server) -> None:
        calls = [asyncio.ensure_future(start(client, str(n))) for n in range(20)]
        requests = [await server.request() for _ in calls]
        assert [frame.stream for frame, _ in requests] == list(range(1, 41, 2))
        for frame, request in reversed(requests):
            await server.answer(frame, 100 + int(task_pb2.StartRequest.FromString(request.payload).id))
        assert await asyncio.gather(*calls) == [100 + n for n in range(20)]

    talk(story)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, Internal), (2, Internal), (3, BadInput), (4, Deadline), (5, Absent), (6, Duplicate), (8, Full),
        (9, WrongState), (12, Unsupported), (13, Internal), (14, Busy), (99, Internal),
    ],
)  # fmt: skip
def test_a_status_is_raised_as_what_it_means_with_its_words(code: int, kind: type[CrispError]) -> None:
    async def story(client: Client, server: Server) -> None:
        for words, shown in (("it is broken", "it is broken"), ("", f"status {code} without a word")):
            call = asyncio.ensure_future(start(client))
            frame, _ = await server.request()
            await server.refuse(frame, code, words)
            with pytest.raises(CrispError) as refusal:
                await call
            assert (type(refusal.value), refusal.value.message) == (kind, shown)

    talk(story)


def test_a_call_that_is_not_answered_in_time_is_over_and_its_late_answer_harms_nobody() -> None:
    async def story(client: Client, server: Server) -> None:
        with pytest.raises(Deadline, match=r"shim of x: Start was not answered within 0\.05 s"):
            await start(client, timeout=0.05)
        late, _ = await server.request()
        call = asyncio.ensure_future(start(client))
        frame, _ = await server.request()
        await server.answer(late, 1)
        await server.answer(frame, 2)
        assert await call == 2

    talk(story)


def test_a_cancelled_call_is_forgotten_and_others_go_on() -> None:
    async def story(client: Client, server: Server) -> None:
        gone, stays = asyncio.ensure_future(start(client)), asyncio.ensure_future(start(client))
        first, _ = await server.request()
        second, _ = await server.request()
        gone.cancel()
        await asyncio.wait([gone])
        assert gone.cancelled()
        await server.answer(first, 1)
        await server.answer(second, 2)
        assert await stays == 2

    talk(story)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (b"", "it closed the connection"),
        (struct.pack(">IIBB", 100, 1, 2, 0) + b"abc", "it closed the connection within a message"),
        (b"\x00\x00", "it closed the connection within a message"),
        (struct.pack(">IIBB", 3, 1, 9, 0) + b"abc", "ttrpc frame of type 9 on stream 1: no such type"),
    ],
    ids=["between messages", "within a payload", "within a header", "nonsense"],
)
def test_when_the_connection_is_lost_every_call_hears_of_it_and_so_do_later_ones(
    last: bytes, words: str
) -> None:
    told: list[str] = []

    async def story(client: Client, server: Server) -> None:
        calls = [asyncio.ensure_future(start(client)) for _ in range(3)]
        for _ in calls:
            await server.request()
        await server.send(last)
        server.connection.shutdown(socket.SHUT_WR)
        for call in calls:
            with pytest.raises(ConnectionLost, match=f"shim of x: {words}"):
                await call
        assert client.closed
        with pytest.raises(ConnectionLost, match=f"shim of x: Start: {words}"):
            await start(client)

    talk(story, lost=lambda: told.append("lost"))
    assert told == ["lost"]


def test_who_closes_it_is_not_told_that_it_is_lost() -> None:
    async def story(client: Client, server: Server) -> None:
        call = asyncio.ensure_future(start(client))
        await server.request()
        for _ in range(2):
            client.close()
        with pytest.raises(ConnectionLost, match="the connection was closed"):
            await call

    talk(story, lost=lambda: pytest.fail("told"))


def test_an_answer_over_the_limit_fails_its_call_alone() -> None:
    async def story(client: Client, server: Server) -> None:
        large, other = asyncio.ensure_future(start(client)), asyncio.ensure_future(start(client))
        frame, _ = await server.request()
        second, _ = await server.request()
        over = frames.LONGEST + 1
        await server.send(struct.pack(">IIBB", over, frame.stream, frames.RESPONSE, 0) + bytes(over))
        with pytest.raises(BadFrame, match=f"the answer has {over} bytes, over {frames.LONGEST}"):
            await large
        await server.answer(second, 2)
        assert await other == 2

    talk(story)


def test_a_request_over_the_limit_is_not_sent() -> None:
    async def story(client: Client, server: Server) -> None:
        with pytest.raises(Oversized, match="is over the limit"):
            await start(client, "x" * (frames.LONGEST + 1))
        call = asyncio.ensure_future(start(client))
        frame, _ = await server.request()
        await server.answer(frame, 3)
        assert await call == 3

    talk(story)


def test_requests_wait_for_a_server_that_does_not_read_and_all_arrive() -> None:
    async def story(client: Client, server: Server) -> None:
        calls = [asyncio.ensure_future(start(client, f"{n:06}" + "x" * 100_000)) for n in range(20)]
        await asyncio.sleep(0)
        found = []
        for _ in calls:
            frame, request = await server.request()
            found.append(task_pb2.StartRequest.FromString(request.payload).id[:6])
            await server.answer(frame, frame.stream)
        assert found == [f"{n:06}" for n in range(20)]
        assert await asyncio.gather(*calls) == list(range(1, 41, 2))

    talk(story)


def test_answers_to_nobody_and_answers_of_another_kind_are_dropped_or_refused() -> None:
    async def story(client: Client, server: Server) -> None:
        call = asyncio.ensure_future(start(client))
        frame, _ = await server.request()
        for stream in (0, 2, frame.stream + 2, 0xFFFFFFFF):
            await server.answer(Frame(stream=stream, type=frames.REQUEST), 9)
        await server.answer(frame, 4)
        await server.answer(frame, 5)
        assert await call == 4
        data = asyncio.ensure_future(start(client))
        frame, _ = await server.request()
        await server.send(encode(Frame(stream=frame.stream, type=frames.DATA, payload=b"")))
        with pytest.raises(BadFrame, match="type 3 is no answer"):
            await data
        torn = asyncio.ensure_future(start(client))
        frame, _ = await server.request()
        await server.send(response_frame(frame.stream, b"\xff\xff"))
        with pytest.raises(BadFrame, match="the answer to Start cannot be read"):
            await torn
        empty = client.call(SERVICE, "Kill", task_pb2.KillRequest(), empty_pb2.Empty, timeout=None)
        killed = asyncio.ensure_future(empty)
        frame, _ = await server.request()
        await server.send(response_frame(frame.stream, b""))
        assert await killed == empty_pb2.Empty()

    talk(story)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


@settings(max_examples=40)
@given(st.permutations(range(6)), st.lists(st.integers(1, 40), max_size=20), st.sets(st.integers(0, 5)))
def test_however_answers_are_ordered_and_split_each_call_gets_its_own(
    order: list[int], sizes: list[int], cancelled: set[int]
) -> None:
    async def story(client: Client, server: Server) -> None:
        calls = [asyncio.ensure_future(start(client, str(n))) for n in range(6)]
        streams = [(await server.request())[0].stream for _ in calls]
        for n in cancelled:
            calls[n].cancel()
        await asyncio.sleep(0)
        for piece in cut(b"".join(answer(streams[n], 100 + n) for n in order), sizes):
            await server.send(piece)
            await asyncio.sleep(0)
        found = await asyncio.gather(*calls, return_exceptions=True)
        for n, result in enumerate(found):
            assert isinstance(result, asyncio.CancelledError) if n in cancelled else result == 100 + n

    talk(story)


@settings(max_examples=60)
@given(st.binary(max_size=80))
def test_no_bytes_of_a_server_leave_a_call_hanging_once_it_hangs_up(data: bytes) -> None:
    async def story(client: Client, server: Server) -> None:
        call = asyncio.ensure_future(start(client))
        await server.request()
        await server.send(data)
        server.connection.shutdown(socket.SHUT_WR)
        try:
            await call
        except CrispError:
            pass

    talk(story)
