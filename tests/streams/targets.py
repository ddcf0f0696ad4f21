"""What the fuzzer calls: one input as a client's bytes, for every core that takes some. No IO.

A property that fails is an AssertionError; so is any other exception, since a core answers with events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from api.streaming import spdy
from api.streaming.channels import SPDY, WEBSOCKET, Ended, Wanted
from api.streaming.events import Aborted, Connect, Gone, HalfClosed, Input, InputEnd, Received
from api.streaming.forwarding import MAX_EARLY, ChannelForwarding, SpdyForwarding, TunnelForwarding
from api.streaming.remote import SpdyRemote, WebSocketRemote
from api.streaming.spdy import Framer
from api.streaming.upgrade import Head

WANTED: Final = Wanted(stdin=True, stdout=True, stderr=False, tty=True)
_STEP: Final = 7  # bytes at a time, the second time


def framer(data: bytes) -> None:
    """Frames are the same however they come, a failure is the last, nothing is larger than its limit."""
    whole, cut = _joined(Framer().receive(data)), _joined(_in_steps(Framer().receive, data))
    assert whole == cut, (whole, cut)
    assert not any(isinstance(frame, spdy.Failure) for frame in whole[:-1])
    for frame in whole:
        if isinstance(frame, spdy.SynStream | spdy.SynReply | spdy.Headers):
            assert len(frame.headers) <= spdy.MAX_HEADERS
            assert sum(len(key) + len(value) for key, value in frame.headers.items()) <= spdy.MAX_BLOCK


def remote(data: bytes) -> None:
    """Exec and attach: input comes in one piece of the session, and nothing comes after the end."""
    for make in (
        lambda: SpdyRemote(WANTED, SPDY["v4.channel.k8s.io"]),
        lambda: WebSocketRemote(WANTED, WEBSOCKET["v5.channel.k8s.io"]),
        lambda: WebSocketRemote(WANTED, WEBSOCKET["base64.channel.k8s.io"]),
    ):
        one, two = make(), make()
        whole, cut = one.receive(data), _in_steps(two.receive, data)
        assert _agree(_of(whole, Input), _of(cut, Input), exactly=not _broken(whole))
        assert [type(e) for e in whole if not isinstance(e, Input)] == [
            type(e) for e in cut if not isinstance(e, Input)
        ]
        _nothing_after_the_end(whole)
        kinds = [type(event) for event in whole]
        assert kinds.count(InputEnd) <= 1
        if InputEnd in kinds:
            assert Input not in kinds[kinds.index(InputEnd) :]
        one.finish(Ended(code=0))


def forward(data: bytes) -> None:
    """Port-forward: connections are asked for once, and nothing is said of one that was not."""
    version = WEBSOCKET["v4.channel.k8s.io"]
    for make in (SpdyForwarding, TunnelForwarding, lambda: ChannelForwarding((80, 81), version)):
        core, other = make(), make()
        events = [*core.opening(), *core.receive(data, 0.0)]
        cut = [*other.opening(), *_in_steps(lambda piece, to=other: to.receive(piece, 0.0), data)]
        one, two, exactly = _by_key(events), _by_key(cut), not _broken(events)
        assert one.keys() == two.keys()
        for key, (said, kinds) in one.items():
            assert kinds == two[key][1]
            assert _agree(said, two[key][0], exactly=exactly)
        _nothing_after_the_end(events)
        known: set[int] = set()
        for event in events:
            if isinstance(event, Connect):
                assert event.key not in known
                assert 0 < event.port < 65536
                known.add(event.key)
            elif isinstance(event, Received | HalfClosed | Aborted):
                assert event.key in known
        for key in known:
            core.send(key, b"x")
            core.finish(key)
            core.fail(key, "words")
            core.abort(key)
        core.expire(1e9)
        assert core.due() is None
        core.goodbye()
        inner = getattr(core, "_inner", core)
        if isinstance(inner, SpdyForwarding):  # nothing of a connection outlives it
            assert all(len(pair.early) <= MAX_EARLY for pair in inner._pairs.values())


def head(data: bytes) -> None:
    """HTTP: a request, a refusal, or more bytes are needed; the refusal can be sent."""
    one = Head()
    found = one.receive(data)
    if found is not None and not hasattr(found, "method"):
        one.refuse(found)  # type: ignore[arg-type] - a Refusal


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "spdy": lambda data: (framer(data), remote(data))[0],
    "forward": forward,
    "head": head,
}


def _in_steps(receive: Callable[[bytes], Iterable[Any]], data: bytes) -> list[Any]:
    return [event for at in range(0, len(data), _STEP) for event in receive(data[at : at + _STEP])]


def _joined(frames: Sequence[Any]) -> list[Any]:
    made: list[Any] = []
    for frame in frames:
        last = made[-1] if made else None
        if (
            isinstance(frame, spdy.Data)
            and isinstance(last, spdy.Data)
            and last.stream == frame.stream
            and not last.fin
        ):
            made[-1] = spdy.Data(stream=frame.stream, data=last.data + frame.data, fin=frame.fin)
        else:
            made.append(frame)
    return made


def _of(events: Iterable[Any], kind: type) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, kind))


def _by_key(events: Iterable[Any]) -> dict[int, tuple[bytes, list[type]]]:
    found: dict[int, tuple[bytes, list[type]]] = {}
    for event in events:
        if isinstance(event, Connect | Received | HalfClosed | Aborted):
            data, kinds = found.get(event.key, (b"", []))
            if isinstance(event, Received):
                found[event.key] = (data + event.data, kinds)
            else:
                found[event.key] = (data, [*kinds, type(event)])
    return found


def _broken(events: Sequence[Any]) -> bool:
    return any(isinstance(event, Gone) and event.fault for event in events)


def _agree(one: bytes, two: bytes, *, exactly: bool) -> bool:
    """Of a message that breaks the protocol more or less is passed on before it is known to do so."""
    return one == two if exactly else one.startswith(two) or two.startswith(one)


def _nothing_after_the_end(events: Sequence[Any]) -> None:
    assert not any(isinstance(event, Gone) for event in events[:-1])
