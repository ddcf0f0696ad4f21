"""What each version of the remote command protocol can do, and how its last word is written.

One table for SPDY and WebSocket, exec and attach. Nothing here reads or writes a connection.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final


class Channel(Enum):
    """A direction of a remote command. The number is the WebSocket channel, `type` SPDY's `streamType`."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4

    @property
    def type(self) -> str:
        return self.name.lower()


CLOSE_CHANNEL: Final = 255
"""WebSocket v5: a message of this channel and one byte half-closes the channel that the byte names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """`name` as it is negotiated, "" where a WebSocket client names none.

    `resize`: terminal sizes can be sent; `status`: the last word is a JSON Status (else text, and only on
    failure); `close` is whether stdin can be ended, `base64` whether messages are text.
    """

    name: str
    resize: bool
    status: bool
    close: bool
    base64: bool = False


SPDY: Final[dict[str, Version]] = {
    version.name: version
    for version in (
        Version(name="v4.channel.k8s.io", resize=True, status=True, close=True),
        Version(name="v3.channel.k8s.io", resize=True, status=False, close=True),
        Version(name="v2.channel.k8s.io", resize=False, status=False, close=True),
        Version(name="channel.k8s.io", resize=False, status=False, close=True),
    )
}

WEBSOCKET: Final[dict[str, Version]] = {
    version.name: version
    for version in (
        Version(name="v5.channel.k8s.io", resize=True, status=True, close=True),
        Version(name="v4.channel.k8s.io", resize=True, status=True, close=False),
        Version(name="v4.base64.channel.k8s.io", resize=True, status=True, close=False, base64=True),
        Version(name="channel.k8s.io", resize=True, status=False, close=False),
        Version(name="base64.channel.k8s.io", resize=True, status=False, close=False, base64=True),
        Version(name="", resize=True, status=False, close=False),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request asked for. A terminal has one output, so `stderr` is never set with `tty`."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    def channels(self, version: Version) -> frozenset[Channel]:
        """The channels of a session; ERROR is always one."""
        asked = {
            Channel.STDIN: self.stdin,
            Channel.STDOUT: self.stdout,
            Channel.STDERR: self.stderr,
            Channel.ERROR: True,
            Channel.RESIZE: self.tty and version.resize,
        }
        return frozenset(channel for channel, there in asked.items() if there)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A session came to its end; `code` is the process's exit code, None where it is not told (attach)."""

    code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A session failed; `message` is for the user."""

    message: str


Outcome = Ended | Failed

_MESSAGE_LIMIT = 8192


def last_word(outcome: Outcome, version: Version) -> bytes:
    """What is written to the error channel: a Status of meta/v1, or in old versions text on failure."""
    if version.status:
        return json.dumps(_status(outcome), separators=(",", ":")).encode()
    if isinstance(outcome, Failed):
        return outcome.message[:_MESSAGE_LIMIT].encode("utf-8", "backslashreplace")
    return _exit_text(outcome.code).encode() if outcome.code else b""


def _exit_text(code: int) -> str:
    return f"command terminated with exit code {code}"


def _status(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Failed):
        return {
            "metadata": {},
            "status": "Failure",
            "message": outcome.message[:_MESSAGE_LIMIT],
            "reason": "InternalError",
            "code": 500,
        }
    if not outcome.code:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": _exit_text(outcome.code),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(outcome.code)}]},
    }


def read_last_word(data: bytes) -> Outcome:
    """What a client makes of the error channel's content, of any version. "" is success."""
    if not data:
        return Ended()
    try:
        status = json.loads(data)
    except (ValueError, RecursionError):
        return Failed(message=data.decode("utf-8", "replace"))
    if not isinstance(status, dict):
        return Failed(message=data.decode("utf-8", "replace"))
    if status.get("status") == "Success":
        return Ended(code=0)
    details = status.get("details")
    causes = details.get("causes", []) if isinstance(details, dict) else []
    for cause in causes if status.get("reason") == "NonZeroExitCode" else ():
        if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdecimal():
            return Ended(code=int(cause["message"]))
    return Failed(message=str(status.get("message", "")))


class Sizes:
    """Terminal sizes out of a byte stream: JSON objects back to back, `{"Width":80,"Height":24}`."""

    _LIMIT = 1024

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[tuple[int, int]]:
        """(width, height) of each object that `data` completes; what is none, or is 0, is passed over."""
        found = []
        for byte_group in data.split(b"}")[:-1]:
            self._buffer += byte_group + b"}"
            size = _size(bytes(self._buffer)) if len(self._buffer) <= self._LIMIT else None
            self._buffer.clear()
            if size is not None:
                found.append(size)
        self._buffer += data.rpartition(b"}")[2]
        del self._buffer[self._LIMIT + 1 :]
        return found


def _size(text: bytes) -> tuple[int, int] | None:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    fields = {str(name).lower(): value for name, value in said.items()}
    width, height = fields.get("width"), fields.get("height")
    if type(width) is not int or type(height) is not int:
        return None
    return (width, height) if 0 < width < 1 << 16 and 0 < height < 1 << 16 else None
