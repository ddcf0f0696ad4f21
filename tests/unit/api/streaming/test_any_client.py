"""Whatever a client sends, the cores answer with events and never raise, however it is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.streaming import spdy
from api.streaming.channels import SPDY, WEBSOCKET, Channel, Ended, Wanted
from api.streaming.events import Gone, Input, Received
from api.streaming.forwarding import ChannelForwarding, SpdyForwarding, TunnelForwarding
from api.streaming.remote import SpdyRemote, WebSocketRemote
from api.streaming.spdy import Framer
from api.streaming.upgrade import Head
from api.streaming.websocket import Messages
from tests.unit.api.streaming.feeding import joined, pieces

WANTED = Wanted(stdin=True, stdout=True, stderr=False, tty=True)
STREAMS = st.integers(1, 12)
TYPES = st.sampled_from(["error", "stdin", "stdout", "stderr", "resize", "data", "music", ""])
FRAMES = st.one_of(
    st.builds(
        spdy.SynStream,
        stream=STREAMS,
        headers=st.fixed_dictionaries(
            {"streamtype": TYPES, "port": st.sampled_from(["80", "81", "0", "x"])},
            optional={"requestid": st.sampled_from(["0", "1", ""])},
        ),
        fin=st.booleans(),
    ),
    st.builds(spdy.Data, stream=STREAMS, data=st.binary(max_size=20), fin=st.booleans()),
    st.builds(spdy.Reset, stream=STREAMS, status=st.integers(0, 9)),
    st.builds(spdy.Ping, id=st.integers(0, 9)),
    st.builds(spdy.GoAway, last_stream=STREAMS),
)
MESSAGES = st.lists(st.one_of(st.binary(max_size=40), st.text("0123456789aA=+/*", max_size=20)), max_size=8)
CUTS = st.lists(st.integers(0, 600), max_size=6)

Receive = Callable[[bytes], Sequence[Any]]


def forwarding(make: Callable[[], Any]) -> Callable[[], Receive]:
    def fresh() -> Receive:
        core = make()
        return lambda data: core.receive(data, 0.0)

    return fresh


SPDY_CORES: dict[str, Callable[[], Receive]] = {
    "remote": lambda: SpdyRemote(WANTED, SPDY["v4.channel.k8s.io"]).receive,
    "forward": forwarding(SpdyForwarding),
}
WEB_CORES: dict[str, Callable[[], Receive]] = {
    "v5": lambda: WebSocketRemote(WANTED, WEBSOCKET["v5.channel.k8s.io"]).receive,
    "base64": lambda: WebSocketRemote(WANTED, WEBSOCKET["base64.channel.k8s.io"]).receive,
    "channels": forwarding(lambda: ChannelForwarding((80, 81), WEBSOCKET["v4.channel.k8s.io"])),
    "tunnel": forwarding(TunnelForwarding),
}


def told(fresh: Callable[[], Receive], data: bytes, cuts: list[int]) -> list[Any]:
    receive = fresh()
    return joined([event for part in pieces(data, cuts) for event in receive(part)], Input, Received)


@pytest.mark.parametrize("core", list(SPDY_CORES))
@given(st.lists(FRAMES, max_size=12), st.binary(max_size=30), CUTS)
def test_any_spdy_client_is_told_alike(core: str, frames: list[Any], junk: bytes, cuts: list[int]) -> None:
    sender = Framer()
    data = b"".join(sender.send(frame) for frame in frames) + junk
    whole = told(SPDY_CORES[core], data, [])
    assert told(SPDY_CORES[core], data, cuts) == whole
    assert [event for event in whole[:-1] if isinstance(event, Gone)] == []


@pytest.mark.parametrize("core", [name for name in WEB_CORES if name != "tunnel"])
@given(MESSAGES, st.binary(max_size=30), CUTS)
def test_any_websocket_client_is_told_alike(
    core: str, messages: list[Any], junk: bytes, cuts: list[int]
) -> None:
    client = Messages(client=True)
    sent = [client.text(m) if isinstance(m, str) else client.binary(m) for m in messages]
    data = b"".join(sent) + junk
    assert told(WEB_CORES[core], data, cuts) == told(WEB_CORES[core], data, [])


@given(st.lists(FRAMES, max_size=12), CUTS, st.lists(st.integers(0, 900), max_size=6))
def test_any_tunnel_is_what_is_in_it(frames: list[Any], slices: list[int], cuts: list[int]) -> None:
    sender, client = Framer(), Messages(client=True)
    inner = b"".join(sender.send(frame) for frame in frames)
    data = b"".join(client.binary(part) for part in pieces(inner, slices))

    def named(events: list[Any]) -> list[Any]:
        return joined([e for e in events if type(e).__name__ not in ("Reply", "Gone")], Received)

    plain = named(told(SPDY_CORES["forward"], inner, []))
    assert named(told(WEB_CORES["tunnel"], data, cuts)) == plain


@given(st.binary(max_size=200), CUTS)
def test_any_bytes_are_a_request_or_refused(data: bytes, cuts: list[int]) -> None:
    head = Head()
    for part in pieces(data, cuts):
        if part and head.receive(part) is not None:
            break


@given(st.lists(FRAMES, max_size=10), st.lists(st.sampled_from(list(Channel)), max_size=6))
def test_output_can_always_be_asked_for(frames: list[Any], channels: list[Channel]) -> None:
    sender, remote = Framer(), SpdyRemote(WANTED, SPDY["v4.channel.k8s.io"])
    remote.receive(b"".join(sender.send(frame) for frame in frames))
    for channel in channels:
        remote.output(channel, b"x")
        remote.finish_output(channel)
    assert Framer().receive(remote.finish(Ended(code=0))[-16:]) != []  # goodbye has no headers to inflate


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(1, 12), max_size=6))
def test_a_forward_can_always_be_ended(frames: list[Any], keys: list[int]) -> None:
    sender, core = Framer(), SpdyForwarding()
    core.receive(b"".join(sender.send(frame) for frame in frames), 0.0)
    for key in keys:
        core.send(key, b"x")
        core.finish(key)
        core.fail(key, "no")
        core.abort(key)
        assert core.send(key, b"x") == b""
    core.expire(1000.0)
    assert core.due() is None
