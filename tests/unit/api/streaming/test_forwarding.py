"""Port-forward conversations: pairs of SPDY streams, the old channels, the tunnel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from api.streaming import spdy
from api.streaming.channels import WEBSOCKET
from api.streaming.events import Aborted, Connect, Gone, HalfClosed, Received, Reply
from api.streaming.forwarding import (
    MAX_EARLY,
    PAIR_TIME,
    ChannelForwarding,
    SpdyForwarding,
    TunnelForwarding,
    read_port,
)
from api.streaming.spdy import Data, Framer, GoAway, Ping, Reset, SynReply, SynStream
from api.streaming.websocket import Messages, Piece
from tests.unit.api.streaming.feeding import same_in_all_ways


def opened(
    client: Framer, stream: int, type_: str, id_: str | None = "0", port: str = "80", **more: Any
) -> bytes:
    named = {} if id_ is None else {"requestID": id_}
    return client.send(SynStream(stream=stream, headers={"streamType": type_, "port": port, **named}, **more))


def pair(client: Framer, first: int = 1, id_: str | None = "0", port: str = "80") -> bytes:
    """As kubectl opens one: the error stream, half-closed at once, then the data stream."""
    sent = opened(client, first, "error", id_, port) + client.send(Data(stream=first, data=b"", fin=True))
    return sent + opened(client, first + 2, "data", id_, port)


def fresh() -> Callable[[bytes], Sequence[Any]]:
    core = SpdyForwarding()
    return lambda data: core.receive(data, 0.0)


def answers(events: Iterable[Any]) -> list[Any]:
    return Framer().receive(b"".join(event.data for event in events if isinstance(event, Reply)))


def others(events: Iterable[Any]) -> list[Any]:
    return [event for event in events if not isinstance(event, Reply)]


def test_two_streams_of_one_request_become_a_connection() -> None:
    client = Framer()
    data = (
        pair(client)
        + client.send(Data(stream=3, data=b"GET /"))
        + client.send(Data(stream=3, data=b"", fin=True))
    )
    events = same_in_all_ways(data, fresh, Received)
    assert others(events) == [Connect(key=3, port=80), Received(key=3, data=b"GET /"), HalfClosed(key=3)]
    assert answers(events) == [SynReply(stream=1, headers={}), SynReply(stream=3, headers={})]


def test_many_connections_share_a_session_in_any_order() -> None:
    client = Framer()
    data = opened(client, 1, "error", "a", "80") + opened(client, 3, "data", "b", "81")
    data += opened(client, 5, "error", "b", "81") + opened(client, 7, "data", "a", "80")
    assert others(same_in_all_ways(data, fresh)) == [Connect(key=3, port=81), Connect(key=7, port=80)]


def test_without_a_request_id_data_follows_its_error_stream() -> None:
    client = Framer()
    data = pair(client, 1, None, "80") + pair(client, 5, None, "81")
    assert others(same_in_all_ways(data, fresh)) == [Connect(key=3, port=80), Connect(key=7, port=81)]


def test_data_before_the_error_stream_waits() -> None:
    client = Framer()
    data = opened(client, 1, "data") + client.send(Data(stream=1, data=b"early", fin=True))
    data += opened(client, 3, "error")
    events = same_in_all_ways(data, fresh, Received)
    assert others(events) == [Connect(key=1, port=80), Received(key=1, data=b"early"), HalfClosed(key=1)]


def test_early_data_has_a_limit_and_the_session_goes_on() -> None:
    client = Framer()
    data = opened(client, 1, "data") + client.send(Data(stream=1, data=bytes(MAX_EARLY + 1)))
    events = SpdyForwarding().receive(data + pair(client, 3, "1"), 0)
    assert others(events) == [Connect(key=5, port=80)]
    assert Reset(stream=1, status=spdy.CANCEL) in answers(events)


@pytest.mark.parametrize(
    ("type_", "port"),
    [
        ("music", "80"),
        ("data", ""),
        ("data", "0"),
        ("data", "65536"),
        ("error", "-1"),
        ("data", "8 0"),
        ("data", "٨"),
    ],
)
def test_a_bad_type_or_port_resets_that_stream_alone(type_: str, port: str) -> None:
    client = Framer()
    port = port if port.isascii() else "\xb2"
    data = opened(client, 1, type_, "x", port) + pair(client, 3)
    events = same_in_all_ways(data, fresh)
    assert others(events) == [Connect(key=5, port=80)]
    assert answers(events)[0] == Reset(stream=1, status=spdy.PROTOCOL_ERROR)


def test_a_second_stream_of_a_kind_ends_a_pair_that_waits() -> None:
    client = Framer()
    data = opened(client, 1, "error") + opened(client, 3, "error") + opened(client, 5, "data")
    events = same_in_all_ways(data, fresh)
    assert others(events) == []
    assert answers(events) == [
        SynReply(stream=1, headers={}),
        Data(stream=1, data=b"port forward request id 0: two error streams", fin=True),
        Reset(stream=3, status=spdy.PROTOCOL_ERROR),
        SynReply(stream=5, headers={}),
    ]


def test_a_second_stream_of_a_kind_leaves_a_working_pair_alone() -> None:
    client = Framer()
    data = pair(client) + opened(client, 5, "data") + client.send(Data(stream=3, data=b"x"))
    assert others(same_in_all_ways(data, fresh)) == [Connect(key=3, port=80), Received(key=3, data=b"x")]


def test_a_pair_that_stays_incomplete_is_given_up_with_words() -> None:
    client, core = Framer(), SpdyForwarding()
    assert core.due() is None
    first = core.receive(opened(client, 1, "error", "a"), 100.0)
    first += core.receive(opened(client, 3, "data", "b"), 101.0)
    client.receive(b"".join(event.data for event in first if isinstance(event, Reply)))
    assert core.due() == 100.0 + PAIR_TIME
    assert core.expire(100.0 + PAIR_TIME - 1) == []
    late = [reply for now in (130.0, 131.0) for reply in core.expire(now)]
    assert [frame for reply in late for frame in client.receive(reply.data)] == [
        Data(stream=1, data=b"the other stream did not come within 30 s", fin=True),
        Reset(stream=3, status=spdy.CANCEL),
    ]
    assert core.due() is None


def test_a_reset_aborts_its_own_connection_only() -> None:
    client = Framer()
    data = pair(client, 1, "a") + pair(client, 5, "b") + client.send(Reset(stream=3, status=spdy.CANCEL))
    data += client.send(Data(stream=3, data=b"late")) + client.send(Data(stream=7, data=b"x"))
    events = same_in_all_ways(data, fresh)
    assert others(events)[2:] == [Aborted(key=3), Received(key=7, data=b"x")]


def connected() -> tuple[Framer, SpdyForwarding]:
    client, core = Framer(), SpdyForwarding()
    events = core.receive(pair(client), 0)
    client.receive(b"".join(event.data for event in events if isinstance(event, Reply)))
    return client, core


def test_the_pods_end_closes_both_streams_and_input_may_go_on() -> None:
    client, core = connected()
    assert client.receive(core.send(3, b"answer") + core.finish(3) + core.finish(3)) == [
        Data(stream=3, data=b"answer"),
        Data(stream=3, data=b"", fin=True),
        Data(stream=1, data=b"", fin=True),
    ]
    assert core.receive(client.send(Data(stream=3, data=b"more", fin=True)), 0) == [
        Received(key=3, data=b"more"),
        HalfClosed(key=3),
    ]
    assert (core.send(3, b"x"), core.finish(3), core.abort(3)) == (b"", b"", b"")


def test_a_connection_that_fails_is_told_on_its_error_stream() -> None:
    client, core = connected()
    assert client.receive(core.fail(3, "connection refused")) == [
        Data(stream=3, data=b"", fin=True),
        Data(stream=1, data=b"connection refused", fin=True),
    ]
    assert core.send(3, b"x") == b""


def test_a_connection_that_breaks_is_reset() -> None:
    client, core = connected()
    assert client.receive(core.abort(3)) == [
        Data(stream=1, data=b"", fin=True),
        Reset(stream=3, status=spdy.CANCEL),
    ]


@pytest.mark.parametrize("data", [bytes(8), Framer().send(SynStream(stream=2, headers={}))])
def test_who_breaks_the_protocol_is_gone(data: bytes) -> None:
    events = same_in_all_ways(data, fresh)
    assert isinstance(events[-1], Gone)
    assert events[-1].fault


def test_pings_are_echoed_and_goodbye_names_the_last_stream() -> None:
    client, core = connected()
    (reply,) = core.receive(client.send(Ping(id=1)), 0)
    assert isinstance(reply, Reply)
    assert client.receive(reply.data + core.goodbye()) == [Ping(id=1), GoAway(last_stream=3)]


def test_ports_are_decimal_and_in_range() -> None:
    texts = ("1", "65535", "0", "65536", "", "+1", "1.0", "999999", "²")
    assert {text: read_port(text) for text in texts if read_port(text)} == {"1": 1, "65535": 65535}


# The old channels.


class Web:
    """A WebSocket client that reads whole messages."""

    def __init__(self) -> None:
        self.messages = Messages(client=True)

    def receive(self, data: bytes) -> list[bytes]:
        return [
            event.data for event in self.messages.receive(data) if isinstance(event, Piece) and event.last
        ]


def test_old_channels_begin_with_their_ports() -> None:
    core = ChannelForwarding((80, 443), WEBSOCKET["v4.channel.k8s.io"])
    reply, *connects = core.opening()
    assert isinstance(reply, Reply)
    assert connects == [Connect(key=0, port=80), Connect(key=1, port=443)]
    assert Web().receive(reply.data) == [b"\0P\0", b"\1P\0", b"\2\xbb\1", b"\3\xbb\1"]


@pytest.mark.parametrize("name", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""])
def test_old_channels_carry_data_and_words(name: str) -> None:
    version, client = WEBSOCKET[name], Messages(client=True)
    sent = client.text("2eA==") if version.base64 else client.binary(b"\2x")
    sent += client.text("1eA==") if version.base64 else client.binary(b"\1x")
    sent += client.text("8eA==") if version.base64 else client.binary(b"\x08x")

    def receive() -> Callable[[bytes], Sequence[Any]]:
        core = ChannelForwarding((80, 443), version)
        return lambda data: core.receive(data, 0)

    assert same_in_all_ways(sent, receive, Received) == [Received(key=1, data=b"x")]
    core = ChannelForwarding((80, 443), version)
    out = core.send(1, b"y") + core.fail(1, "no") + core.finish(1) + core.abort(1)
    expected = [b"2eQ==", b"3bm8="] if version.base64 else [b"\2y", b"\3no"]
    assert Web().receive(out) == expected


# The tunnel.


def test_a_tunnel_carries_the_same_conversation_cut_anywhere() -> None:
    client, web = Framer(), Messages(client=True)
    inner = pair(client) + client.send(Data(stream=3, data=b"hello", fin=True))
    sent = b"".join(web.binary(inner[i : i + 7]) for i in range(0, len(inner), 7))

    def receive() -> Callable[[bytes], Sequence[Any]]:
        core = TunnelForwarding()
        return lambda data: core.receive(data, 0)

    events = same_in_all_ways(sent, receive, Received)
    assert others(events) == [Connect(key=3, port=80), Received(key=3, data=b"hello"), HalfClosed(key=3)]
    core = TunnelForwarding()
    reader = Web()
    replies = b"".join(event.data for event in core.receive(sent, 0) if isinstance(event, Reply))
    stream = b"".join(reader.receive(replies + core.send(3, b"yes") + core.finish(3) + core.goodbye()))
    assert client.receive(stream) == [
        SynReply(stream=1, headers={}),
        SynReply(stream=3, headers={}),
        Data(stream=3, data=b"yes"),
        Data(stream=3, data=b"", fin=True),
        Data(stream=1, data=b"", fin=True),
        GoAway(last_stream=3),
    ]
    assert reader.messages.close_code == 1000


def test_nonsense_in_a_tunnel_closes_it_with_a_code() -> None:
    web = Messages(client=True)
    reply, gone = TunnelForwarding().receive(web.binary(bytes(8)), 0)
    assert isinstance(reply, Reply)
    assert gone == Gone(fault="a DATA frame of stream 0")
    list(web.receive(reply.data))
    assert web.close_code == 1002
