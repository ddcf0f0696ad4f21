"""From a client's HTTP request to what it will speak, or to the refusal that it is sent. No IO.

HTTP/1.1 by h11; the upgrade of SPDY/3.1 and of WebSocket (RFC 6455, 4.2). The URL's path is taken apart here,
what its token means is known elsewhere.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import h11
from wsproto.utilities import generate_accept_token

from api.streaming import channels
from api.streaming.channels import Version

MAX_HEAD: Final = 16 * 1024
"""Bytes at most of a request's first line and headers."""

FORWARD_SPDY: Final = "portforward.k8s.io"
FORWARD_TUNNELS: Final = ("SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io")
FORWARD_CHANNELS: Final = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")

_STREAM_HEADER: Final = "x-stream-protocol-version"


class Kind(Enum):
    """What a URL is for; the first part of its path."""

    EXEC = "exec"
    ATTACH = "attach"
    FORWARD = "portforward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request's head. Header names are lower case; a name that was sent twice is there twice."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        """Every member of the comma lists that headers of this name hold."""
        values = [value for key, value in self.headers if key == name]
        return [word.strip() for value in values for word in value.split(",") if word.strip()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that ends the connection."""

    status: int
    text: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spdy:
    """An accepted upgrade; `protocol` is the name that the client offered and Crisp took."""

    protocol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocket:
    """An accepted upgrade; `protocol` is "" where the client offered none."""

    protocol: str
    key: str


Upgrade = Spdy | WebSocket


class Head:
    """One connection's HTTP: a single request, a single answer."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    def receive(self, data: bytes) -> Request | Refusal | None:
        """The request, once it is there; b"" is the end of what the client sends."""
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return None
            if not isinstance(event, h11.Request):
                return Refusal(status=400, text="no request")
            if not isinstance(self._connection.next_event(), h11.EndOfMessage):
                return Refusal(status=400, text="a request with a body")
        except h11.RemoteProtocolError as error:
            return Refusal(status=error.error_status_hint, text=f"no HTTP request: {error}")
        return Request(
            method=event.method.decode("ascii"),
            target=event.target.decode("latin-1"),
            headers=tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in event.headers),
        )

    def rest(self) -> bytes:
        """What the client sent behind its request: the first bytes of the new protocol."""
        return bytes(self._connection.trailing_data[0])

    def accept(self, upgrade: Upgrade) -> bytes:
        """The answer 101."""
        if isinstance(upgrade, Spdy):
            headers = [("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", upgrade.protocol)]
        else:
            accept = generate_accept_token(upgrade.key.encode("ascii")).decode("ascii")
            headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept)]
            if upgrade.protocol:
                headers.append(("Sec-WebSocket-Protocol", upgrade.protocol))
        made = h11.InformationalResponse(
            status_code=101, headers=[("Connection", "Upgrade"), *headers], reason=b"Switching Protocols"
        )
        return self._connection.send(made) or b""

    def refuse(self, refusal: Refusal) -> bytes:
        """Any other answer, with its words as text; the connection ends after it."""
        if self._connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        body = refusal.text.encode("utf-8", "backslashreplace") + b"\n"
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *refusal.headers,
        ]
        parts = (
            self._connection.send(h11.Response(status_code=refusal.status, headers=headers)),
            self._connection.send(h11.Data(data=body)),
            self._connection.send(h11.EndOfMessage()),
        )
        return b"".join(part or b"" for part in parts)


def target(request: Request) -> tuple[Kind, str] | Refusal:
    """What a request's path names, and its token."""
    absent = Refusal(status=404, text="there is nothing here")
    parts = request.target.partition("?")[0].split("/")
    kind = next((each for each in Kind if parts[1:2] == [each.value]), None)
    if len(parts) != 3 or parts[0] or kind is None or not parts[2]:
        return absent
    if request.method not in ("GET", "POST"):
        return Refusal(status=405, text="GET or POST", headers=(("Allow", "GET, POST"),))
    return kind, parts[2]


def negotiate(request: Request, kind: Kind) -> Upgrade | Refusal:
    """What will be spoken: of the client's offers the first that Crisp knows."""
    upgrades = [word.lower() for word in request.all("upgrade")]
    asked = "upgrade" in (word.lower() for word in request.all("connection"))
    if asked and "websocket" in upgrades:
        return _websocket(request, kind)
    offered = request.all(_STREAM_HEADER)
    if not offered:
        return Refusal(status=400, text="no X-Stream-Protocol-Version, and no WebSocket upgrade")
    known = [FORWARD_SPDY] if kind is Kind.FORWARD else list(channels.SPDY)
    protocol = next((name for name in offered if name in known), None)
    if protocol is None:
        accepted = tuple(("X-Accepted-Stream-Protocol-Versions", name) for name in known)
        return Refusal(status=403, text="none of the offered stream protocols is known", headers=accepted)
    if not asked or "spdy/3.1" not in upgrades:
        return Refusal(status=400, text="no upgrade to SPDY/3.1")
    return Spdy(protocol=protocol)


def _websocket(request: Request, kind: Kind) -> Upgrade | Refusal:
    if request.method != "GET":
        return Refusal(status=405, text="a WebSocket begins with GET", headers=(("Allow", "GET"),))
    if request.all("sec-websocket-version") != ["13"]:
        version = (("Sec-WebSocket-Version", "13"),)
        return Refusal(status=426, text="only version 13 of WebSocket", headers=version)
    keys = request.all("sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return Refusal(status=400, text="no valid Sec-WebSocket-Key")
    known = (*FORWARD_TUNNELS, *FORWARD_CHANNELS) if kind is Kind.FORWARD else tuple(channels.WEBSOCKET)
    offered = request.all("sec-websocket-protocol")
    protocol = next((name for name in offered if name in known), None) if offered else ""
    if protocol is None:
        return Refusal(status=403, text="none of the offered WebSocket protocols is known")
    return WebSocket(protocol=protocol, key=keys[0])


def _is_key(text: str) -> bool:
    """Whether it is 16 bytes in base64 (RFC 6455, 4.2.1)."""
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def forward_version(protocol: str) -> Version | None:
    """How the old port-forward channels are written; None for a tunnel."""
    return None if protocol in FORWARD_TUNNELS else channels.WEBSOCKET[protocol]
