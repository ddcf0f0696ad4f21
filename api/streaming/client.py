"""The client's side of exec, attach and port-forward, without IO: for `crisp`, and for tests as every client.

A conversation begins with `Opening`, which takes the server's answer; what follows goes to the conversation.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from api.streaming import spdy
from api.streaming.channels import CLOSE_CHANNEL, Channel, Version, Wanted
from api.streaming.events import Gone, Reply
from api.streaming.remote import Channels, channel_message
from api.streaming.upgrade import FORWARD_SPDY
from api.streaming.websocket import Messages, Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Bytes of one channel; `ended` when it sends no more."""

    channel: Channel
    data: bytes
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The server's answer to the upgrade: 101 and the protocol that it took, or a refusal and its words."""

    status: int
    protocol: str = ""
    text: str = ""


class Opening:
    """The upgrade of one connection. `protocols` in the order of preference."""

    def __init__(self, url: str, protocols: tuple[str, ...], *, websocket: bool) -> None:
        parts = urlsplit(url)
        self.tls = parts.scheme == "https"
        self.host, self.port = parts.hostname or "", parts.port or (443 if self.tls else 80)
        self._connection = h11.Connection(h11.CLIENT)
        self._answer: h11.InformationalResponse | h11.Response | None = None
        self._body = b""
        if websocket:
            headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
            headers += [("Sec-WebSocket-Key", base64.b64encode(secrets.token_bytes(16)).decode())]
            headers += [("Sec-WebSocket-Protocol", ", ".join(protocols))] if any(protocols) else []
        else:
            headers = [("Upgrade", "SPDY/3.1")]
            headers += [("X-Stream-Protocol-Version", name) for name in protocols]
        self._request = h11.Request(
            method="GET" if websocket else "POST",
            target=parts.path,
            headers=[("Host", parts.netloc), ("Connection", "Upgrade"), *headers],
        )

    def request(self) -> bytes:
        sent = self._connection.send(self._request) or b""
        return sent + (self._connection.send(h11.EndOfMessage()) or b"")

    def receive(self, data: bytes) -> Answer | None:
        """The answer, once it is whole. `data` b"" is the end of the connection."""
        self._connection.receive_data(data)
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.InformationalResponse):
                fields = {bytes(k).decode().lower(): bytes(v).decode() for k, v in event.headers}
                taken = fields.get("sec-websocket-protocol") or fields.get("x-stream-protocol-version", "")
                return Answer(status=event.status_code, protocol=taken)
            if isinstance(event, h11.Response):
                self._answer = event
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                status = self._answer.status_code if self._answer is not None else 0
                return Answer(status=status, text=self._body.decode("utf-8", "replace").strip())
            else:
                return None

    def rest(self) -> bytes:
        """What came behind the answer."""
        return bytes(self._connection.trailing_data[0])


class SpdyRemoteClient:
    """Exec or attach over SPDY: stream 1 is the error stream, the others follow as kubectl opens them."""

    def __init__(self, wanted: Wanted, version: Version) -> None:
        self._framer = spdy.Framer()
        there = wanted.channels(version)
        order = (Channel.ERROR, Channel.STDIN, Channel.STDOUT, Channel.STDERR, Channel.RESIZE)
        self._streams = {channel: 2 * n + 1 for n, channel in enumerate(c for c in order if c in there)}
        self._channels = {stream: channel for channel, stream in self._streams.items()}

    def start(self) -> bytes:
        return b"".join(
            self._framer.send(spdy.SynStream(stream=stream, headers={"streamType": channel.type}))
            for channel, stream in self._streams.items()
        )

    def receive(self, data: bytes) -> list[Said | Reply | Gone]:
        found: list[Said | Reply | Gone] = []
        for frame in self._framer.receive(data):
            if isinstance(frame, spdy.Data) and frame.stream in self._channels:
                channel = self._channels[frame.stream]
                found.append(Said(channel=channel, data=frame.data, ended=frame.fin))
            elif isinstance(frame, spdy.Failure):
                found.append(Gone(fault=frame.message))
            elif isinstance(frame, spdy.GoAway):
                found.append(Gone())
        return found

    def input(self, data: bytes) -> bytes:
        return self._framer.send(spdy.Data(stream=self._streams[Channel.STDIN], data=data))

    def end_input(self) -> bytes:
        return self._framer.send(spdy.Data(stream=self._streams[Channel.STDIN], data=b"", fin=True))

    def resize(self, width: int, height: int) -> bytes:
        return self._framer.send(spdy.Data(stream=self._streams[Channel.RESIZE], data=_size(width, height)))


class WebSocketRemoteClient:
    """Exec or attach over WebSocket, in any version."""

    def __init__(self, wanted: Wanted, version: Version) -> None:
        self._version = version
        self._messages = Messages(client=True)
        self._reader = Channels(base64=version.base64)
        self._channels = {channel.value: channel for channel in Channel}

    def start(self) -> bytes:
        return b""

    def receive(self, data: bytes) -> list[Said | Reply | Gone]:
        found: list[Said | Reply | Gone] = []
        for event in self._messages.receive(data):
            if isinstance(event, Piece):
                for number, payload in self._reader.receive(event):
                    if payload and number in self._channels:
                        found.append(Said(channel=self._channels[number], data=payload))
            elif isinstance(event, Gone) and self._messages.close_code != 1000:
                found.append(Gone(fault=event.fault or f"closed with {self._messages.close_code}"))
            else:
                found.append(event)
        return found

    def input(self, data: bytes) -> bytes:
        return channel_message(self._messages, Channel.STDIN.value, data, base64_=self._version.base64)

    def end_input(self) -> bytes:
        """Nothing in a version that has no way to say it."""
        if not self._version.close:
            return b""
        return self._messages.binary(bytes((CLOSE_CHANNEL, Channel.STDIN.value)))

    def close(self) -> bytes:
        return self._messages.close()

    def resize(self, width: int, height: int) -> bytes:
        size = _size(width, height)
        return channel_message(self._messages, Channel.RESIZE.value, size, base64_=self._version.base64)


def _size(width: int, height: int) -> bytes:
    return json.dumps({"Width": width, "Height": height}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """Bytes from the pod on connection `key`, or words about why there is none (`error`)."""

    key: int
    data: bytes
    ended: bool = False
    error: bool = False


class ForwardClient:
    """Port forwarding over SPDY: any number of connections in one session."""

    protocols = (FORWARD_SPDY,)

    def __init__(self) -> None:
        self._framer = spdy.Framer()
        self._next = 1
        self._errors: dict[int, int] = {}  # error stream -> key

    def connect(self, port: int) -> tuple[int, bytes]:
        """A new connection's key, and what must be sent for it."""
        error, key = self._next, self._next + 2
        self._next += 4
        self._errors[error] = key
        named = {"port": str(port), "requestID": str(key)}
        sent = self._framer.send(spdy.SynStream(stream=error, headers={"streamType": "error", **named}))
        sent += self._framer.send(spdy.Data(stream=error, data=b"", fin=True))
        sent += self._framer.send(spdy.SynStream(stream=key, headers={"streamType": "data", **named}))
        return key, sent

    def send(self, key: int, data: bytes) -> bytes:
        return self._framer.send(spdy.Data(stream=key, data=data))

    def end(self, key: int) -> bytes:
        return self._framer.send(spdy.Data(stream=key, data=b"", fin=True))

    def reset(self, key: int) -> bytes:
        return self._framer.send(spdy.Reset(stream=key, status=spdy.CANCEL))

    def receive(self, data: bytes) -> list[Forwarded | Gone]:
        found: list[Forwarded | Gone] = []
        for frame in self._framer.receive(data):
            if isinstance(frame, spdy.Data):
                key = self._errors.get(frame.stream)
                if key is None:
                    found.append(Forwarded(key=frame.stream, data=frame.data, ended=frame.fin))
                elif frame.data:
                    found.append(Forwarded(key=key, data=frame.data, error=True))
            elif isinstance(frame, spdy.Reset):
                key = self._errors.get(frame.stream, frame.stream)
                found.append(Forwarded(key=key, data=b"", ended=True))
            elif isinstance(frame, spdy.GoAway | spdy.Failure):
                found.append(Gone(fault=frame.message if isinstance(frame, spdy.Failure) else ""))
        return found
