"""What real clients said: read the same whole, byte by byte and cut anywhere, and it means this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.streaming import channels
from api.streaming.channels import Channel, Ended, Wanted, read_last_word
from api.streaming.client import Said, SpdyRemoteClient, WebSocketRemoteClient
from api.streaming.events import (
    Aborted,
    Connect,
    Gone,
    HalfClosed,
    Input,
    InputEnd,
    Ready,
    Received,
    Reply,
    Resize,
)
from api.streaming.forwarding import SpdyForwarding, TunnelForwarding
from api.streaming.remote import SpdyRemote, WebSocketRemote
from api.streaming.upgrade import Head, Kind, Request, Spdy, negotiate, target
from tests.streams.recordings import Recording, read
from tests.unit.api.streaming.feeding import pieces, same_in_all_ways

RECORDINGS = {each.name: each for each in read()}
ALL = pytest.mark.parametrize("name", list(RECORDINGS))
REMOTE = {name: each for name, each in RECORDINGS.items() if each.kind != "portforward"}

Receive = Callable[[bytes], Sequence[Any]]


def wanted(of: Recording) -> Wanted:
    asked = {name: of.asked.get(name) == ["true"] for name in ("stdin", "stdout", "stderr", "tty")}
    return Wanted(**asked)


def core(of: Recording) -> Any:
    spdy = "X-Stream-Protocol-Version" in of.head.decode("latin-1")
    if of.kind == "portforward":
        return SpdyForwarding() if spdy else TunnelForwarding()
    make, versions = (SpdyRemote, channels.SPDY) if spdy else (WebSocketRemote, channels.WEBSOCKET)
    return make(wanted(of), versions[of.protocol])


def fresh(of: Recording) -> Callable[[], Receive]:
    def made() -> Receive:
        one = core(of)
        forward = of.kind == "portforward"
        opening = [] if forward else one.opening()

        def receive(data: bytes) -> Sequence[Any]:
            events = one.receive(data, 0.0) if forward else one.receive(data)
            found = [*opening, *events]
            opening.clear()
            return [event for event in found if not isinstance(event, Reply)]

        return receive

    return made


def client_of(of: Recording) -> str:
    return of.name.partition("-")[0]


def meant(of: Recording) -> list[Any]:
    """What its client did, in events; ports and sizes as they were on that day."""
    terminal = wanted(of).tty
    if of.kind == "portforward":
        # critest's HTTP client lets go of its connection as it likes; one of the four recorded was reset.
        end = Aborted if of.name == "critest-1.36.0-websocket-4-portforward" else HalfClosed
        return [Connect, Received, end] * (3 if client_of(of) == "kubectl" else 1)
    kinds: list[type] = [Ready]
    if terminal and client_of(of) != "critest":  # it asks for a terminal and has none itself
        kinds += [Resize]
    if wanted(of).stdin and (client_of(of), of.kind) != ("critest", "exec"):  # nor does it type there
        kinds += [Input] if terminal else [Input, InputEnd]
    return kinds


@ALL
def test_the_head_is_answered_with_the_protocol_that_the_client_took(name: str) -> None:
    of = RECORDINGS[name]

    def heads() -> Receive:
        head = Head()
        return lambda data: [found] if (found := head.receive(data)) is not None else []

    (request,) = same_in_all_ways(of.head, heads, cuts=(1, 17, 80))
    assert isinstance(request, Request)
    assert target(request) == (Kind(of.kind), "TOKEN")
    upgrade = negotiate(request, Kind(of.kind))
    assert getattr(upgrade, "protocol", None) == of.protocol
    assert isinstance(upgrade, Spdy) == ("SPDY/3.1\r\n" in of.head.decode("latin-1"))


@ALL
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(0, 800), max_size=12))
def test_a_conversation_means_the_same_however_it_comes(name: str, cuts: list[int]) -> None:
    of = RECORDINGS[name]
    events = same_in_all_ways(of.client, fresh(of), Input, Received, cuts=cuts)
    said = [event for event in events if not isinstance(event, Gone)]
    kinds = [type(event) for event in said]
    if wanted(of).tty and kinds[-1] is InputEnd:  # over SPDY a terminal is closed at its end, too
        kinds.pop()
    assert [kind for kind in kinds if kind is not Resize] == [k for k in meant(of) if k is not Resize]
    assert (Resize in kinds) == (Resize in meant(of))
    assert not any(event.fault for event in events if isinstance(event, Gone))


@pytest.mark.parametrize("name", list(REMOTE))
def test_what_the_daemon_said_ends_with_its_last_word(name: str) -> None:
    of = REMOTE[name]
    spdy = "X-Stream-Protocol-Version" in of.head.decode("latin-1")
    make, versions = (
        (SpdyRemoteClient, channels.SPDY) if spdy else (WebSocketRemoteClient, channels.WEBSOCKET)
    )
    client = make(wanted(of), versions[of.protocol])
    client.start()
    word = b"".join(
        event.data
        for part in pieces(of.server, range(0, len(of.server), 11))
        for event in client.receive(part)
        if isinstance(event, Said) and event.channel is Channel.ERROR
    )
    command = of.asked.get("command", [""])
    code = {"test": 1, "sh": 0 if wanted(of).tty else 3}.get(command[0], 0)
    assert read_last_word(word) == Ended(code=code)


@pytest.mark.parametrize("client", ["crictl", "critest", "kubectl"])
def test_every_operation_was_recorded_over_both_transports(client: str) -> None:
    recorded = {
        (each.kind, wanted(each).tty, each.protocol)
        for each in RECORDINGS.values()
        if client_of(each) == client
    }
    assert recorded == {
        *(
            (kind, tty, protocol)
            for kind, tty in (("exec", False), ("exec", True), ("attach", False), ("attach", True))
            for protocol in ("v4.channel.k8s.io", "v5.channel.k8s.io")
            if (client, kind, tty) != ("critest", "attach", True)  # no spec of it does
        ),
        ("portforward", False, "portforward.k8s.io"),
        ("portforward", False, "SPDY/3.1+portforward.k8s.io"),
    }
