"""Exec and attach conversations: SPDY and WebSocket clients of every version, well-behaved and not."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from api.streaming import spdy
from api.streaming.channels import SPDY, WEBSOCKET, Channel, Ended, Failed, Wanted
from api.streaming.events import Gone, Input, InputEnd, Ready, Reply, Resize
from api.streaming.remote import MAX_EARLY, MAX_STREAMS, SpdyRemote, WebSocketRemote
from api.streaming.spdy import Data, Framer, GoAway, Ping, Reset, SynReply, SynStream
from api.streaming.websocket import Messages, Piece
from tests.unit.api.streaming.feeding import joined, same_in_all_ways

PLAIN = Wanted(stdin=True, stdout=True, stderr=True, tty=False)
TTY = Wanted(stdin=True, stdout=True, stderr=False, tty=True)
V4 = SPDY["v4.channel.k8s.io"]
V5 = WEBSOCKET["v5.channel.k8s.io"]


def opened(framer: Framer, *types: str) -> bytes:
    """A client opens streams 1, 3, 5 ... of these types."""
    return b"".join(
        framer.send(SynStream(stream=2 * index + 1, headers={"streamType": type_}))
        for index, type_ in enumerate(types)
    )


def receiver(wanted: Wanted = PLAIN, version: Any = V4) -> Callable[[], Callable[[bytes], Sequence[Any]]]:
    return lambda: SpdyRemote(wanted, version).receive


def answers(events: Iterable[Any]) -> list[Any]:
    """The frames in what the client is sent."""
    return Framer().receive(b"".join(event.data for event in events if isinstance(event, Reply)))


def others(events: Iterable[Any]) -> list[Any]:
    return [event for event in events if not isinstance(event, Reply)]


def test_a_session_is_ready_when_every_stream_came_in_any_order() -> None:
    data = opened(Framer(), "stderr", "stdin", "error", "stdout")
    events = same_in_all_ways(data, receiver())
    assert [type(event) for event in events] == [Reply, Reply, Reply, Reply, Ready]
    assert answers(events) == [SynReply(stream=stream, headers={}) for stream in (1, 3, 5, 7)]


def test_an_unknown_stream_type_is_ignored_and_does_not_count() -> None:
    client = Framer()
    data = opened(client, "error", "music", "stdin", "stdout")
    data += client.send(Data(stream=3, data=b"la la"))
    events = same_in_all_ways(data, receiver())
    assert others(events) == []
    assert [frame.stream for frame in answers(events)] == [1, 3, 5, 7]


def test_a_second_stream_of_a_type_and_one_that_nobody_asked_for_are_refused() -> None:
    data = opened(Framer(), "error", "stdin", "stdin", "stderr", "stdout", "resize")
    events = same_in_all_ways(data, receiver(TTY))
    assert others(events) == [Ready()]
    assert [frame for frame in answers(events) if isinstance(frame, Reset)] == [
        Reset(stream=5, status=spdy.REFUSED_STREAM),
        Reset(stream=7, status=spdy.REFUSED_STREAM),
    ]


def test_input_its_end_and_sizes_are_told_in_order() -> None:
    client = Framer()
    data = opened(client, "error", "stdin", "stdout", "resize")
    data += client.send(Data(stream=7, data=b'{"Width":80,"Height":24}'))
    data += client.send(Data(stream=3, data=b"hello"))
    data += client.send(Data(stream=3, data=b"", fin=True))
    data += client.send(Data(stream=3, data=b"after the end"))
    events = same_in_all_ways(data, receiver(TTY), Input)
    assert others(events) == [Ready(), Resize(width=80, height=24), Input(data=b"hello"), InputEnd()]


def test_input_that_comes_early_waits_for_the_session() -> None:
    client = Framer()
    data = opened(client, "stdin")
    data += client.send(Data(stream=1, data=b"early", fin=True))
    for stream, type_ in ((3, "error"), (5, "stdout"), (7, "stderr")):
        data += client.send(SynStream(stream=stream, headers={"streamtype": type_}))
    events = same_in_all_ways(data, receiver(), Input)
    assert others(events) == [Ready(), Input(data=b"early"), InputEnd()]


def test_not_everything_is_kept_for_a_session_that_does_not_begin() -> None:
    client = Framer()
    data = opened(client, "stdin") + client.send(Data(stream=1, data=bytes(MAX_EARLY + 1)))
    events = SpdyRemote(PLAIN, V4).receive(data)
    assert others(events) == [Gone(fault="more input than is kept while streams are missing")]


def test_a_reset_of_the_input_is_its_end_and_of_an_output_nobody_hears_it() -> None:
    client = Framer()
    remote = SpdyRemote(PLAIN, V4)
    remote.receive(opened(client, "error", "stdin", "stdout", "stderr"))
    sent = client.send(Reset(stream=3, status=spdy.CANCEL)) + client.send(Reset(stream=5, status=spdy.CANCEL))
    assert remote.receive(sent) == [InputEnd()]
    assert remote.output(Channel.STDOUT, b"x") == b""
    assert client.receive(remote.output(Channel.STDERR, b"x")) == [Data(stream=7, data=b"x")]
    # an output that was reset is not opened again
    again = remote.receive(client.send(SynStream(stream=9, headers={"streamtype": "stdout"})))
    assert answers(again) == [Reset(stream=9, status=spdy.REFUSED_STREAM)]


def test_pings_are_echoed_and_answers_are_not() -> None:
    client = Framer()
    data = client.send(Ping(id=1)) + client.send(Ping(id=2)) + client.send(GoAway(last_stream=0))
    assert answers(same_in_all_ways(data, receiver())) == [Ping(id=1)]


@pytest.mark.parametrize(
    "data",
    [
        bytes(8),
        Framer().send(SynStream(stream=2, headers={})),
        Framer().send(SynStream(stream=1, headers={})) * 2,
        opened(Framer(), *["music"] * (MAX_STREAMS + 1)),
    ],
    ids=["no SPDY", "an even stream", "a stream twice", "too many streams"],
)
def test_a_client_that_breaks_the_rules_is_gone(data: bytes) -> None:
    events = same_in_all_ways(data, receiver())
    assert isinstance(events[-1], Gone)
    assert events[-1].fault


@pytest.mark.parametrize(("name", "status"), [("v4.channel.k8s.io", True), ("v2.channel.k8s.io", False)])
def test_the_end_of_a_session_closes_outputs_then_the_last_word_then_goodbye(name: str, status: bool) -> None:
    client = Framer()
    remote = SpdyRemote(PLAIN, SPDY[name])
    events = remote.receive(opened(client, "error", "stdin", "stdout", "stderr"))
    client.receive(b"".join(event.data for event in events if isinstance(event, Reply)))
    data = remote.output(Channel.STDOUT, b"out") + remote.finish_output(Channel.STDOUT)
    data += remote.finish(Ended(code=0))
    said = b'{"metadata":{},"status":"Success"}' if status else b""
    assert client.receive(data) == [
        Data(stream=5, data=b"out"),
        Data(stream=5, data=b"", fin=True),
        Data(stream=7, data=b"", fin=True),
        *([Data(stream=1, data=said)] if said else []),
        Data(stream=1, data=b"", fin=True),
        GoAway(last_stream=7),
    ]


class WebClient:
    """The other end of a WebSocket session."""

    def __init__(self) -> None:
        self.messages = Messages(client=True)
        self._reading = b""

    def receive(self, data: bytes) -> list[Any]:
        """Whole messages, and the end."""
        found: list[Any] = []
        for event in self.messages.receive(data):
            if isinstance(event, Piece):
                self._reading += event.data
                if event.last:
                    found.append(self._reading)
                    self._reading = b""
            elif isinstance(event, Gone):
                found.append(self.messages.close_code)
        return found


def test_a_websocket_session_begins_with_a_word_on_its_lowest_output() -> None:
    lowest = {}
    for name, wanted in (
        ("plain", PLAIN),
        ("only stderr", Wanted(stdin=True, stdout=False, stderr=True, tty=False)),
        ("only stdin", Wanted(stdin=True, stdout=False, stderr=False, tty=False)),
    ):
        first, second = WebSocketRemote(wanted, V5).opening()
        assert isinstance(first, Reply)
        assert second == Ready()
        lowest[name] = WebClient().receive(first.data)
    assert lowest == {"plain": [b"\x01"], "only stderr": [b"\x02"], "only stdin": [b"\x03"]}


def web_session(name: str, *messages: tuple[int, bytes], wanted: Wanted = TTY) -> list[Any]:
    """What a client's messages on these channels become."""
    version, client = WEBSOCKET[name], Messages(client=True)
    data = b""
    for channel, payload in messages:
        if version.base64:
            data += client.text(str(channel) + base64.b64encode(payload).decode())
        else:
            data += client.binary(bytes([channel]) + payload)
    return same_in_all_ways(data, lambda: WebSocketRemote(wanted, version).receive, Input)


@pytest.mark.parametrize("name", list(WEBSOCKET))
def test_every_websocket_version_carries_input_and_sizes(name: str) -> None:
    messages = [(0, b"hello"), (0, b""), (4, b'{"Width":80,"Height":24}'), (7, b"nobody"), (1, b"no")]
    assert web_session(name, *messages) == [Input(data=b"hello"), Resize(width=80, height=24)]


@pytest.mark.parametrize("name", [name for name, version in WEBSOCKET.items() if not version.base64])
def test_only_v5_can_end_the_input(name: str) -> None:
    events = web_session(name, (255, b"\x00"), (255, b"\x00"), (0, b"late"), wanted=PLAIN)
    assert events == ([InputEnd()] if name.startswith("v5") else [Input(data=b"late")])


@pytest.mark.parametrize("signal", [b"", b"\x01", b"\x00\x00", b"\x03"])
def test_a_close_signal_that_is_not_exactly_that_of_the_input_is_ignored(signal: bytes) -> None:
    assert web_session("v5.channel.k8s.io", (255, signal), (0, b"x")) == [Input(data=b"x")]


def test_input_that_was_not_asked_for_is_ignored() -> None:
    wanted = Wanted(stdin=False, stdout=True, stderr=True, tty=False)
    assert web_session("v5.channel.k8s.io", (0, b"x"), (255, b"\x00"), (4, b"{}"), wanted=wanted) == []


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(0, 400), max_size=5), st.sampled_from(list(WEBSOCKET)))  # fmt: skip  # noqa: E501
def test_input_arrives_whole_however_messages_are_cut(data: bytes, cuts: list[int], name: str) -> None:
    client, version = FrameProtocol(client=True, extensions=[]), WEBSOCKET[name]
    text: Any = "0" + base64.b64encode(data).decode() if version.base64 else b"\x00" + data
    edges = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    sent = b""
    for start, end in zip(edges, [*edges[1:], len(text)], strict=True):
        sent += client.send_data(text[start:end], fin=end == len(text) and start == edges[-1])
    remote = WebSocketRemote(PLAIN, version)
    assert joined(remote.receive(sent), Input) == [Input(data=data)]


@pytest.mark.parametrize("payload", ["0abc", "0ab==cdef", "0****"])
def test_what_is_no_base64_ends_the_session(payload: str) -> None:
    version, client = WEBSOCKET["base64.channel.k8s.io"], WebClient()
    data = client.messages.text(payload)
    events = WebSocketRemote(PLAIN, version).receive(data)
    assert isinstance(events[-1], Gone)
    assert isinstance(events[-2], Reply)
    assert client.receive(events[-2].data) == [1007]


def test_a_frame_that_breaks_the_protocol_ends_the_session_with_a_code() -> None:
    client = WebClient()
    unmasked = FrameProtocol(client=False, extensions=[]).send_data(b"\x00x", fin=True)
    events = same_in_all_ways(unmasked, lambda: WebSocketRemote(PLAIN, V5).receive)
    assert [type(event) for event in events] == [Reply, Gone]
    assert client.receive(events[0].data) == [1002]


def test_pings_are_answered_and_a_close_is_echoed() -> None:
    client = WebClient()
    data = client.messages.ping() + client.messages.close()
    events = same_in_all_ways(data, lambda: WebSocketRemote(PLAIN, V5).receive)
    assert [type(event) for event in events] == [Reply, Reply, Gone]
    frames = FrameProtocol(client=True, extensions=[])
    frames.receive_bytes(b"".join(event.data for event in events if isinstance(event, Reply)))
    assert [frame.opcode for frame in frames.received_frames()] == [Opcode.PONG, Opcode.CLOSE]


@pytest.mark.parametrize("name", list(WEBSOCKET))
def test_a_websocket_session_ends_with_the_last_word_and_1000(name: str) -> None:
    client, remote = WebClient(), WebSocketRemote(PLAIN, WEBSOCKET[name])
    data = remote.output(Channel.STDOUT, b"out") + remote.output(Channel.STDOUT, b"")
    data += remote.finish_output(Channel.STDOUT) + remote.finish(Failed(message="broken"))
    received = client.receive(data)
    if WEBSOCKET[name].base64:
        received[:2] = [m[:1].translate(bytes((b - 48) % 256 for b in range(256))) + base64.b64decode(m[1:]) for m in received[:2]]  # fmt: skip  # noqa: E501
    assert received[0] == b"\x01out"
    assert received[1][:1] == b"\x03"
    assert (b'"InternalError"' in received[1]) == WEBSOCKET[name].status
    assert received[2:] == [1000]
