"""Port forwarding as conversations: SPDY streams in pairs, the old WebSocket channels, SPDY in a tunnel.

`SpdyForwarding`, `ChannelForwarding` and `TunnelForwarding` have the same shape, `Forwarding`: a client's
bytes become events, each forwarded connection has a key. No IO, no clock: the time is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from api.streaming import spdy, websocket
from api.streaming.channels import Version
from api.streaming.events import Aborted, Connect, ForwardEvent, Gone, HalfClosed, Received, Reply
from api.streaming.remote import Channels, channel_message
from api.streaming.websocket import Messages, Piece

PAIR_TIME: Final = 30.0
"""Seconds that the second stream of a pair may take."""
MAX_PAIRS: Final = 16384
"""Forwarded connections of one session at the same time."""
MAX_EARLY: Final = 64 * 1024
"""Bytes kept of a data stream whose error stream is still missing."""
_WORDS: Final = 4096


class Forwarding(Protocol):
    """One client's side of a port-forward session."""

    @property
    def lasting(self) -> bool:
        """Whether connections may still be asked for when all are done."""
        ...

    def opening(self) -> list[ForwardEvent]: ...
    def receive(self, data: bytes, now: float) -> list[ForwardEvent]:
        """What `data` says; `now` in seconds. After Gone nothing more."""
        ...

    def due(self) -> float | None:
        """When `expire` has something to do, None for never as things stand."""
        ...

    def expire(self, now: float) -> list[ForwardEvent]:
        """Give up pairs whose other half did not come."""
        ...

    def send(self, key: int, data: bytes) -> bytes: ...
    def finish(self, key: int) -> bytes:
        """The pod sends nothing more on this connection."""
        ...

    def fail(self, key: int, words: str) -> bytes:
        """This connection could not be made; its end."""
        ...

    def abort(self, key: int) -> bytes:
        """This connection broke; its end."""
        ...

    def goodbye(self) -> bytes:
        """The end of the session."""
        ...


@dataclass(slots=True)
class _Pair:
    """`data` and `error` are stream numbers, 0 while they are missing."""

    since: float
    port: int = 0
    data: int = 0
    error: int = 0
    early: bytearray = field(default_factory=bytearray)
    input_ended: bool = False
    output_ended: bool = False

    @property
    def complete(self) -> bool:
        return bool(self.data and self.error)


class SpdyForwarding:
    """See `Forwarding`; a connection's key is the number of its data stream."""

    lasting = True

    def __init__(self) -> None:
        self._framer = spdy.Framer()
        self._pairs: dict[str, _Pair] = {}
        self._waiting: dict[str, _Pair] = {}  # those that are not complete, the oldest first
        self._names: dict[int, str] = {}  # stream -> name of its pair
        self._last = 0
        self._over = False

    def opening(self) -> list[ForwardEvent]:
        return []

    def receive(self, data: bytes, now: float) -> list[ForwardEvent]:
        if self._over:
            return []
        events: list[ForwardEvent] = []
        for frame in self._framer.receive(data):
            events += self._take(frame, now)
            if events and isinstance(events[-1], Gone):
                self._over = True
                break
        return events

    def _take(self, frame: spdy.Frame, now: float) -> list[ForwardEvent]:
        if isinstance(frame, spdy.Data):
            return self._data(frame)
        if isinstance(frame, spdy.SynStream):
            return self._opened(frame, now)
        if isinstance(frame, spdy.Ping):
            return [Reply(data=self._framer.send(frame))] if frame.id % 2 else []
        if isinstance(frame, spdy.Reset):
            return self._reset(frame)
        if isinstance(frame, spdy.Failure):
            return [Gone(fault=frame.message)]
        return []

    def _opened(self, frame: spdy.SynStream, now: float) -> list[ForwardEvent]:
        if frame.stream % 2 == 0 or frame.stream <= self._last:
            return [Gone(fault=f"stream {frame.stream}: even, or not above {self._last}")]
        self._last = frame.stream
        type_, port = frame.headers.get("streamtype", ""), read_port(frame.headers.get("port", ""))
        if type_ not in ("data", "error") or not port:
            return [self._refuse(frame.stream, spdy.PROTOCOL_ERROR)]
        name = _pair_name(frame, type_)
        pair = self._pairs.get(name)
        if pair is None and len(self._pairs) >= MAX_PAIRS:
            return [self._refuse(frame.stream, spdy.REFUSED_STREAM)]
        if pair is not None and (pair.data if type_ == "data" else pair.error):
            return [*self._duplicate(name, pair, type_), self._refuse(frame.stream, spdy.PROTOCOL_ERROR)]
        if pair is None:
            pair = self._pairs[name] = self._waiting[name] = _Pair(since=now)
        self._names[frame.stream] = name
        if type_ == "data":
            pair.data, pair.port, pair.input_ended = frame.stream, port, frame.fin
        else:
            pair.error = frame.stream
        answer = self._framer.send(spdy.SynReply(stream=frame.stream, headers={}))
        events: list[ForwardEvent] = [Reply(data=answer)]
        if pair.complete:
            del self._waiting[name]
            events.append(Connect(key=pair.data, port=pair.port))
            if pair.early:
                events.append(Received(key=pair.data, data=bytes(pair.early)))
                pair.early = bytearray()
            if pair.input_ended:
                events.append(HalfClosed(key=pair.data))
        return events

    def _refuse(self, stream: int, status: int) -> Reply:
        return Reply(data=self._framer.send(spdy.Reset(stream=stream, status=status)))

    def _duplicate(self, name: str, pair: _Pair, type_: str) -> list[ForwardEvent]:
        """A second stream of a kind: a pair that waits is given up, one that works goes on."""
        if pair.complete:
            return []
        words = f"port forward request {name}: two {type_} streams"
        return [Reply(data=self._give_up(name, pair, words))]

    def _give_up(self, name: str, pair: _Pair, words: str) -> bytes:
        sent = self._last_words(pair, words)
        if pair.data:
            sent += self._framer.send(spdy.Reset(stream=pair.data, status=spdy.CANCEL))
        self._forget(name, pair)
        return sent

    def _last_words(self, pair: _Pair, words: str) -> bytes:
        if not pair.error:
            return b""
        said = words.encode("utf-8", "backslashreplace")[:_WORDS]
        return self._framer.send(spdy.Data(stream=pair.error, data=said, fin=True))

    def _forget(self, name: str, pair: _Pair) -> None:
        self._pairs.pop(name, None)
        self._waiting.pop(name, None)
        self._names.pop(pair.data, None)
        self._names.pop(pair.error, None)

    def _data(self, frame: spdy.Data) -> list[ForwardEvent]:
        name = self._names.get(frame.stream, "")
        pair = self._pairs.get(name)
        if pair is None or pair.data != frame.stream or pair.input_ended:
            return []
        pair.input_ended = frame.fin
        if not pair.complete:
            pair.early += frame.data
            if len(pair.early) > MAX_EARLY:
                return [Reply(data=self._give_up(name, pair, "data without an error stream"))]
            return []
        events: list[ForwardEvent] = []
        if frame.data:
            events.append(Received(key=pair.data, data=frame.data))
        if frame.fin:
            events.append(HalfClosed(key=pair.data))
            self._done(name, pair)
        return events

    def _reset(self, frame: spdy.Reset) -> list[ForwardEvent]:
        name = self._names.get(frame.stream, "")
        pair = self._pairs.get(name)
        if pair is None or pair.data != frame.stream:
            return []  # on an error stream there is nothing that the client must have
        complete = pair.complete
        farewell = b"" if pair.output_ended else self._last_words(pair, "")
        self._forget(name, pair)
        events: list[ForwardEvent] = [Reply(data=farewell)] if farewell else []
        return [*events, Aborted(key=frame.stream)] if complete else events

    def _done(self, name: str, pair: _Pair) -> None:
        if pair.input_ended and pair.output_ended:
            self._forget(name, pair)

    def due(self) -> float | None:
        oldest = next(iter(self._waiting.values()), None)
        return oldest.since + PAIR_TIME if oldest is not None else None

    def expire(self, now: float) -> list[ForwardEvent]:
        late = [(name, pair) for name, pair in self._waiting.items() if pair.since + PAIR_TIME <= now]
        words = f"the other stream did not come within {PAIR_TIME:g} s"
        sent = b"".join(self._give_up(name, pair, words) for name, pair in late)
        return [Reply(data=sent)] if sent else []

    def _pair(self, key: int) -> tuple[str, _Pair | None]:
        name = self._names.get(key, "")
        return name, self._pairs.get(name)

    def send(self, key: int, data: bytes) -> bytes:
        _, pair = self._pair(key)
        if pair is None or pair.output_ended:
            return b""
        return self._framer.send(spdy.Data(stream=key, data=data))

    def finish(self, key: int) -> bytes:
        # The error stream ends too: clients read it to its end before they call the connection done.
        return self._end(key, "")

    def fail(self, key: int, words: str) -> bytes:
        _, pair = self._pair(key)
        if pair is not None:
            pair.input_ended = True
        return self._end(key, words)

    def _end(self, key: int, words: str) -> bytes:
        name, pair = self._pair(key)
        if pair is None or pair.output_ended:
            return b""
        pair.output_ended = True
        sent = self._framer.send(spdy.Data(stream=key, data=b"", fin=True)) + self._last_words(pair, words)
        self._done(name, pair)
        return sent

    def abort(self, key: int) -> bytes:
        name, pair = self._pair(key)
        if pair is None:
            return b""
        sent = b"" if pair.output_ended else self._last_words(pair, "")
        self._forget(name, pair)
        return sent + self._framer.send(spdy.Reset(stream=key, status=spdy.CANCEL))

    def goodbye(self) -> bytes:
        return self._framer.send(spdy.GoAway(last_stream=self._last))


def read_port(text: str) -> int:
    """A port as headers have it, 0 for what is none."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        return 0
    port = int(text)
    return port if port <= 65535 else 0


def _pair_name(frame: spdy.SynStream, type_: str) -> str:
    """What both streams of a pair have in common; without an id, data follows two above its error stream."""
    given = frame.headers.get("requestid", "")
    if given:
        return f"id {given}"
    return f"stream {frame.stream if type_ == 'error' else frame.stream - 2}"


class ChannelForwarding:
    """See `Forwarding`: port i has channel 2i for data and 2i+1 for errors; one connection for each port.

    One side of a connection cannot be closed alone.
    """

    lasting = False

    def __init__(self, ports: Sequence[int], version: Version) -> None:
        self._ports = tuple(ports)
        self._version = version
        self._messages = Messages()
        self._reader = Channels(base64=version.base64)
        self._over = False

    def opening(self) -> list[ForwardEvent]:
        named = b"".join(
            self._message(2 * index + offset, port.to_bytes(2, "little"))
            for index, port in enumerate(self._ports)
            for offset in (0, 1)
        )
        connects = [Connect(key=index, port=port) for index, port in enumerate(self._ports)]
        return [Reply(data=named), *connects]

    def receive(self, data: bytes, now: float) -> list[ForwardEvent]:
        events: list[ForwardEvent] = []
        if self._over:
            return events
        for event in self._messages.receive(data):
            if not isinstance(event, Piece):
                events.append(event)
                continue
            try:
                for channel, payload in self._reader.receive(event):
                    if payload and channel % 2 == 0 and channel // 2 < len(self._ports):
                        events.append(Received(key=channel // 2, data=payload))
            except ValueError as error:
                events.append(Reply(data=self._messages.close(websocket.INVALID, str(error))))
                events.append(Gone(fault=str(error)))
                self._over = True
                break
        return events

    def due(self) -> float | None:
        return None

    def expire(self, now: float) -> list[ForwardEvent]:
        return []

    def send(self, key: int, data: bytes) -> bytes:
        return self._message(2 * key, data)

    def finish(self, key: int) -> bytes:
        return b""

    def fail(self, key: int, words: str) -> bytes:
        return self._message(2 * key + 1, words.encode("utf-8", "backslashreplace")[:_WORDS])

    def abort(self, key: int) -> bytes:
        return b""

    def goodbye(self) -> bytes:
        return self._messages.close()

    def _message(self, channel: int, data: bytes) -> bytes:
        return channel_message(self._messages, channel, data, base64_=self._version.base64)


class TunnelForwarding:
    """See `Forwarding`: the byte stream of `SpdyForwarding` cut into binary messages, anywhere."""

    lasting = True

    def __init__(self) -> None:
        self._messages = Messages()
        self._inner = SpdyForwarding()
        self._over = False

    def opening(self) -> list[ForwardEvent]:
        return []

    def receive(self, data: bytes, now: float) -> list[ForwardEvent]:
        events: list[ForwardEvent] = []
        if self._over:
            return events
        for event in self._messages.receive(data):
            if isinstance(event, Piece):
                events += self._wrapped(self._inner.receive(event.data, now))
            else:
                events.append(event)
            if events and isinstance(events[-1], Gone):
                self._over = True
                break
        return events

    def _wrapped(self, events: list[ForwardEvent]) -> list[ForwardEvent]:
        made: list[ForwardEvent] = []
        for event in events:
            if isinstance(event, Reply):
                made.append(Reply(data=self._messages.binary(event.data)))
            elif isinstance(event, Gone):
                made.append(Reply(data=self._messages.close(websocket.PROTOCOL_ERROR, event.fault)))
                made.append(event)
            else:
                made.append(event)
        return made

    def due(self) -> float | None:
        return self._inner.due()

    def expire(self, now: float) -> list[ForwardEvent]:
        return self._wrapped(self._inner.expire(now))

    def send(self, key: int, data: bytes) -> bytes:
        return self._tunnelled(self._inner.send(key, data))

    def finish(self, key: int) -> bytes:
        return self._tunnelled(self._inner.finish(key))

    def fail(self, key: int, words: str) -> bytes:
        return self._tunnelled(self._inner.fail(key, words))

    def abort(self, key: int) -> bytes:
        return self._tunnelled(self._inner.abort(key))

    def goodbye(self) -> bytes:
        return self._tunnelled(self._inner.goodbye()) + self._messages.close()

    def _tunnelled(self, data: bytes) -> bytes:
        return self._messages.binary(data) if data else b""
