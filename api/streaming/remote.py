"""Exec and attach as conversations: a client's bytes to events, output and the last word to bytes. No IO.

`SpdyRemote` and `WebSocketRemote` have the same shape, `Remote`. Rules: which streams a client opens, what is
ignored, in which order a session ends; facts from the Kubernetes remote command protocol v1 to v5.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Protocol

from api.streaming import spdy, websocket
from api.streaming.channels import CLOSE_CHANNEL, Channel, Outcome, Sizes, Version, Wanted, last_word
from api.streaming.events import Gone, Input, InputEnd, Ready, RemoteEvent, Reply, Resize
from api.streaming.websocket import Messages, Piece

MAX_STREAMS: Final = 16
"""Streams that one SPDY client may open; a session has five at most."""
MAX_EARLY: Final = 256 * 1024
"""Bytes of input kept while streams are still missing."""
MAX_TEXT: Final = 1024 * 1024
"""Bytes of one message in base64, which is decoded only when it is whole; others are passed on in pieces."""


class Remote(Protocol):
    """One client's side of an exec or attach."""

    @property
    def resizable(self) -> bool:
        """Whether the client can tell the terminal's size."""
        ...

    def opening(self) -> list[RemoteEvent]:
        """What happens before the client has said anything."""
        ...

    def receive(self, data: bytes) -> list[RemoteEvent]:
        """What `data` says. After Gone nothing more."""
        ...

    def output(self, channel: Channel, data: bytes) -> bytes:
        """Output of the process; b"" where the client does not want it (any more)."""
        ...

    def finish_output(self, channel: Channel) -> bytes:
        """The end of one output."""
        ...

    def finish(self, outcome: Outcome) -> bytes:
        """The end of the session: outputs that are still open, the last word, goodbye."""
        ...


class SpdyRemote:
    """See `Remote`. The session is Ready when every wanted stream was opened, in any order."""

    def __init__(self, wanted: Wanted, version: Version) -> None:
        self._version = version
        self._missing = set(wanted.channels(version))
        self._wanted = frozenset(self._missing)
        self._framer = spdy.Framer()
        self._streams: dict[int, Channel | None] = {}  # None: of a type that nobody knows
        self._open: dict[Channel, int] = {}  # channels on which something can still be sent
        self._input_ended = False
        self._sizes = Sizes()
        self._early: list[RemoteEvent] = []
        self._early_bytes = 0
        self._last_stream = 0
        self._over = False

    @property
    def resizable(self) -> bool:
        return Channel.RESIZE in self._wanted

    def opening(self) -> list[RemoteEvent]:
        return []

    def receive(self, data: bytes) -> list[RemoteEvent]:
        if self._over:
            return []
        events: list[RemoteEvent] = []
        for frame in self._framer.receive(data):
            events += self._take(frame)
            if events and isinstance(events[-1], Gone):
                self._over = True
                break
        return events

    def _take(self, frame: spdy.Frame) -> list[RemoteEvent]:
        if isinstance(frame, spdy.Data):
            return self._data(frame)
        if isinstance(frame, spdy.SynStream):
            return self._opened(frame)
        if isinstance(frame, spdy.Ping):
            return [Reply(data=self._framer.send(frame))] if frame.id % 2 else []
        if isinstance(frame, spdy.Reset):
            return self._reset(frame)
        if isinstance(frame, spdy.Failure):
            return [Gone(fault=frame.message)]
        return []  # going away is said again by the end of the connection

    def _opened(self, frame: spdy.SynStream) -> list[RemoteEvent]:
        if frame.stream % 2 == 0 or frame.stream in self._streams or len(self._streams) >= MAX_STREAMS:
            return [Gone(fault=f"stream {frame.stream}: even, opened twice, or one too many")]
        self._last_stream = max(self._last_stream, frame.stream)
        type_ = frame.headers.get("streamtype", "")
        channel = next((each for each in Channel if each.type == type_), None)
        if channel is not None and (channel in self._open or channel not in self._wanted):
            self._streams[frame.stream] = None
            refused = spdy.Reset(stream=frame.stream, status=spdy.REFUSED_STREAM)
            return [Reply(data=self._framer.send(refused))]
        self._streams[frame.stream] = channel
        answer: list[RemoteEvent] = [
            Reply(data=self._framer.send(spdy.SynReply(stream=frame.stream, headers={})))
        ]
        if channel is None:
            return answer
        self._open[channel] = frame.stream
        if channel in self._missing:
            self._missing.discard(channel)
            if not self._missing:
                answer += [Ready(), *self._early]
                self._early.clear()
        if frame.fin and channel is Channel.STDIN:
            answer += self._hold(self._end_of_input())
        return answer

    def _data(self, frame: spdy.Data) -> list[RemoteEvent]:
        channel = self._streams.get(frame.stream)
        found: list[RemoteEvent] = []
        if channel is Channel.STDIN:
            if frame.data and not self._input_ended:
                found.append(Input(data=frame.data))
            if frame.fin:
                found += self._end_of_input()
        elif channel is Channel.RESIZE:
            found += [Resize(width=w, height=h) for w, h in self._sizes.receive(frame.data)]
        return self._hold(found)

    def _end_of_input(self) -> list[RemoteEvent]:
        if self._input_ended:
            return []
        self._input_ended = True
        return [InputEnd()]

    def _reset(self, frame: spdy.Reset) -> list[RemoteEvent]:
        channel = self._streams.get(frame.stream)
        if channel is None or self._open.get(channel) != frame.stream:
            return []
        if channel in (Channel.STDOUT, Channel.STDERR, Channel.ERROR):
            self._open[channel] = 0  # opened once, never again, and nothing is sent on it
            return []
        return self._hold(self._end_of_input()) if channel is Channel.STDIN else []

    def _hold(self, events: list[RemoteEvent]) -> list[RemoteEvent]:
        """Keep what comes before the session is ready."""
        if not self._missing:
            return events
        self._early += events
        self._early_bytes += sum(len(event.data) if isinstance(event, Input) else 32 for event in events)
        if self._early_bytes > MAX_EARLY:
            return [Gone(fault="more input than is kept while streams are missing")]
        return []

    def output(self, channel: Channel, data: bytes) -> bytes:
        stream = self._open.get(channel, 0)
        return self._framer.send(spdy.Data(stream=stream, data=data)) if stream else b""

    def finish_output(self, channel: Channel) -> bytes:
        stream = self._open.get(channel, 0)
        if not stream:
            return b""
        self._open[channel] = 0
        return self._framer.send(spdy.Data(stream=stream, data=b"", fin=True))

    def finish(self, outcome: Outcome) -> bytes:
        ends = self.finish_output(Channel.STDOUT) + self.finish_output(Channel.STDERR)
        word = self.output(Channel.ERROR, last_word(outcome, self._version))
        ends += word + self.finish_output(Channel.ERROR)
        return ends + self._framer.send(spdy.GoAway(last_stream=self._last_stream))


class WebSocketRemote:
    """See `Remote`. Every channel is there from the beginning."""

    def __init__(self, wanted: Wanted, version: Version) -> None:
        self._version = version
        self._channels = wanted.channels(version)
        self._messages = Messages()
        self._reader = Channels(base64=version.base64)
        self._sizes = Sizes()
        self._input_ended = False
        self._over = False

    @property
    def resizable(self) -> bool:
        return Channel.RESIZE in self._channels

    def opening(self) -> list[RemoteEvent]:
        outputs = [c for c in (Channel.STDOUT, Channel.STDERR, Channel.ERROR) if c in self._channels]
        return [Reply(data=self._message(outputs[0], b"")), Ready()]

    def receive(self, data: bytes) -> list[RemoteEvent]:
        events: list[RemoteEvent] = []
        if self._over:
            return events
        for event in self._messages.receive(data):
            if not isinstance(event, Piece):
                events.append(event)
                continue
            try:
                events += self._piece(event)
            except ValueError as error:
                events += [Reply(data=self._messages.close(websocket.INVALID, str(error)))]
                events += [Gone(fault=str(error))]
            if events and isinstance(events[-1], Gone):
                self._over = True
                break
        return events

    def _piece(self, piece: Piece) -> list[RemoteEvent]:
        found: list[RemoteEvent] = []
        for channel, data in self._reader.receive(piece):
            if channel == CLOSE_CHANNEL:
                if self._version.close and data == bytes([Channel.STDIN.value]) and self._wants_input():
                    self._input_ended = True
                    found.append(InputEnd())
            elif channel == Channel.STDIN.value and data and self._wants_input():
                found.append(Input(data=data))
            elif channel == Channel.RESIZE.value and Channel.RESIZE in self._channels:
                found += [Resize(width=w, height=h) for w, h in self._sizes.receive(data)]
        return found

    def _wants_input(self) -> bool:
        return Channel.STDIN in self._channels and not self._input_ended

    def output(self, channel: Channel, data: bytes) -> bytes:
        return self._message(channel, data) if data and channel in self._channels else b""

    def finish_output(self, channel: Channel) -> bytes:
        return b""  # the protocol has no end of one channel in this direction

    def finish(self, outcome: Outcome) -> bytes:
        return self.output(Channel.ERROR, last_word(outcome, self._version)) + self._messages.close()

    def _message(self, channel: Channel, data: bytes) -> bytes:
        return channel_message(self._messages, channel.value, data, base64_=self._version.base64)


def channel_message(messages: Messages, channel: int, data: bytes, *, base64_: bool) -> bytes:
    """A message of one channel: its number as a byte and the data, or as a digit and the data in base64."""
    if base64_:
        return messages.text(chr(ord("0") + channel) + base64.b64encode(data).decode("ascii"))
    return messages.binary(bytes([channel]) + data)


class Channels:
    """Takes messages apart: which channel, which bytes. Raises ValueError for what is no base64."""

    def __init__(self, *, base64: bool) -> None:
        self._base64 = base64
        self._channel: int | None = None  # not known before the message's first byte
        self._rest = b""
        self._text = bytearray()

    def receive(self, piece: Piece) -> list[tuple[int, bytes]]:
        """Channel and bytes of a piece; a message for the close signal comes whole, cut to two bytes."""
        data = piece.data
        if piece.first:
            self._channel, self._rest = None, b""
            self._text.clear()
        if self._channel is None and data:
            self._channel = data[0] - ord("0") if self._base64 else data[0]
            data = data[1:]
        if self._channel is None:
            return []
        if self._channel == CLOSE_CHANNEL:
            self._rest = (self._rest + data)[:2]
            return [(CLOSE_CHANNEL, self._rest)] if piece.last else []
        if self._base64:
            self._text += data
            if len(self._text) > MAX_TEXT:
                raise ValueError(f"a message in base64 of more than {MAX_TEXT} bytes")
            data = self._decoded() if piece.last else b""
        return [(self._channel, data)] if data else []

    def _decoded(self) -> bytes:
        text = bytes(self._text)
        self._text.clear()
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"a message that is no base64: {error}") from error
