"""What the protocol cores report: the same values whatever the client speaks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Bytes that the protocol owes the client now; to be written before anything later."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The conversation is over: the client closed it, or broke the protocol (then `fault` says how)."""

    fault: str = ""


# Exec and attach.


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Every stream that the request asked for is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InputEnd:
    """The client's standard input is at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """The terminal's size in characters."""

    width: int
    height: int


RemoteEvent = Reply | Gone | Ready | Input | InputEnd | Resize


# Port forwarding. `key` names one forwarded connection within the session.


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    key: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    key: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfClosed:
    """The client sends nothing more on this connection."""

    key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """The client threw this connection away; nothing may be sent on it."""

    key: int


ForwardEvent = Reply | Gone | Connect | Received | HalfClosed | Aborted
