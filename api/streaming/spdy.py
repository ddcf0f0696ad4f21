"""SPDY/3 frames as SPDY/3.1 clients of Kubernetes use them: bytes to frames and back, no IO.

Draft-mbelshe-httpbis-spdy-00 (version 3), sections 2.2 to 2.6. Knows frames and header blocks; what streams
mean is decided above. Everything that a peer can make large has a limit; no flow control is kept, as in the
other implementations of these clients.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.streaming.spdy_dictionary import DICTIONARY

VERSION: Final = 3
MAX_CONTROL: Final = 64 * 1024
"""Bytes at most of one control frame's payload (a compressed header block is most of it)."""
MAX_BLOCK: Final = 64 * 1024
"""Bytes at most of one header block when it is inflated."""
MAX_HEADERS: Final = 64
"""Names at most in one header block."""
MAX_DATA: Final = 2**24 - 1
"""Bytes at most of one DATA frame, by its length field."""

_FIN: Final = 1
_HEAD: Final = struct.Struct(">II")
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 6, 7, 8, 9
_KNOWN: Final = frozenset((_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE))

CANCEL: Final = 5
PROTOCOL_ERROR: Final = 1
REFUSED_STREAM: Final = 3
"""Status codes of RST_STREAM (section 2.6.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynStream:
    """A new stream. Header names are lower case; `fin` half-closes the sender's side at once."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SynReply:
    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    stream: int
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoAway:
    last_stream: int
    status: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowUpdate:
    stream: int
    delta: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A piece of a stream, as it arrived: a DATA frame comes in one piece or in several."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The peer broke the protocol; the connection cannot be used any more. Always the last frame."""

    message: str


Frame = SynStream | SynReply | Headers | Reset | Ping | GoAway | WindowUpdate | Data | Failure


class _Refused(Exception):
    """What was received is no SPDY/3, or over a limit."""


class Framer:
    """One end of a connection. Both directions have one compression context for the connection's life."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._stream = 0  # of the DATA frame under way
        self._rest = -1  # its bytes that are missing; -1 between frames
        self._fin = False
        self._skip = 0  # bytes of an unknown control frame that are still to come
        self._failed = False

    def receive(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. After a Failure nothing more is ever returned."""
        if self._failed:
            return []
        self._buffer += data
        frames: list[Frame] = []
        try:
            while self._next(frames):
                pass
        except _Refused as refused:
            self._failed = True
            self._buffer.clear()
            frames.append(Failure(message=str(refused)))
        return frames

    def _next(self, frames: list[Frame]) -> bool:
        """Take one step; False when more bytes are needed."""
        if self._skip:
            taken = min(self._skip, len(self._buffer))
            del self._buffer[:taken]
            self._skip -= taken
            return self._skip == 0
        if self._rest >= 0:
            return self._next_data(frames)
        if len(self._buffer) < _HEAD.size:
            return False
        first, second = _HEAD.unpack_from(self._buffer)
        length = second & 0xFFFFFF
        if not first & 0x80000000:
            if first == 0:
                raise _Refused("a DATA frame of stream 0")
            del self._buffer[: _HEAD.size]
            self._stream, self._rest, self._fin = first, length, bool(second >> 24 & _FIN)
            return True
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != VERSION:
            raise _Refused(f"a control frame of version {version}, not {VERSION}")
        if kind not in _KNOWN:
            del self._buffer[: _HEAD.size]
            self._skip = length
            return True
        if length > MAX_CONTROL:
            raise _Refused(f"a control frame of {length} bytes; {MAX_CONTROL} is the limit")
        if len(self._buffer) < _HEAD.size + length:
            return False
        payload = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
        del self._buffer[: _HEAD.size + length]
        frames.append(self._control(kind, payload, fin=bool(second >> 24 & _FIN)))
        return True

    def _next_data(self, frames: list[Frame]) -> bool:
        taken = min(self._rest, len(self._buffer))
        if self._rest and not taken:
            return False
        piece = bytes(self._buffer[:taken])
        del self._buffer[:taken]
        self._rest -= taken
        ended = self._rest == 0
        if piece or self._fin:
            frames.append(Data(stream=self._stream, data=piece, fin=ended and self._fin))
        if ended:
            self._rest = -1
        return True

    def _control(self, kind: int, payload: bytes, *, fin: bool) -> Frame:
        if kind == _SYN_STREAM:
            (stream,) = _fields(">I6x", payload, kind)
            return SynStream(stream=stream, headers=self._read_block(payload[10:]), fin=fin)
        if kind in (_SYN_REPLY, _HEADERS):
            (stream,) = _fields(">I", payload, kind)
            made = SynReply if kind == _SYN_REPLY else Headers
            return made(stream=stream, headers=self._read_block(payload[4:]), fin=fin)
        if kind == _PING:
            (number,) = _fields(">I", payload, kind, whole=True)
            return Ping(id=number)
        first, second = _fields(">II", payload, kind, whole=True)
        if kind == _RST_STREAM:
            return Reset(stream=first & 0x7FFFFFFF, status=second)
        if kind == _GOAWAY:
            return GoAway(last_stream=first & 0x7FFFFFFF, status=second)
        return WindowUpdate(stream=first & 0x7FFFFFFF, delta=second & 0x7FFFFFFF)

    def _read_block(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, MAX_BLOCK + 1)
        except zlib.error as error:
            raise _Refused(f"a header block that does not inflate: {error}") from error
        if len(plain) > MAX_BLOCK:
            raise _Refused(f"a header block of more than {MAX_BLOCK} bytes")
        if self._inflate.eof:
            raise _Refused("a header block that ends the compressed stream")
        return read_headers(plain)

    def send(self, frame: Frame) -> bytes:
        """The bytes of a frame. Raises ValueError for what cannot be sent."""
        if isinstance(frame, Data):
            if len(frame.data) > MAX_DATA:
                raise ValueError(f"{len(frame.data)} bytes do not fit into one DATA frame")
            return _HEAD.pack(frame.stream, frame.fin << 24 | len(frame.data)) + frame.data
        if isinstance(frame, SynStream):
            head = struct.pack(">I6x", frame.stream)
            return _control(_SYN_STREAM, head + self._write_block(frame.headers), fin=frame.fin)
        if isinstance(frame, SynReply | Headers):
            kind = _SYN_REPLY if isinstance(frame, SynReply) else _HEADERS
            head = struct.pack(">I", frame.stream)
            return _control(kind, head + self._write_block(frame.headers), fin=frame.fin)
        if isinstance(frame, Ping):
            return _control(_PING, struct.pack(">I", frame.id))
        if isinstance(frame, Reset):
            return _control(_RST_STREAM, struct.pack(">II", frame.stream, frame.status))
        if isinstance(frame, GoAway):
            return _control(_GOAWAY, struct.pack(">II", frame.last_stream, frame.status))
        if isinstance(frame, WindowUpdate):
            return _control(_WINDOW_UPDATE, struct.pack(">II", frame.stream, frame.delta))
        raise ValueError("a failure is not sent")

    def _write_block(self, headers: Mapping[str, str]) -> bytes:
        return self._deflate.compress(write_headers(headers)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, payload: bytes, *, fin: bool = False) -> bytes:
    if len(payload) > MAX_CONTROL:
        raise ValueError(f"a control frame of {len(payload)} bytes")
    return _HEAD.pack(0x80000000 | VERSION << 16 | kind, fin << 24 | len(payload)) + payload


def _fields(layout: str, payload: bytes, kind: int, *, whole: bool = False) -> tuple[int, ...]:
    size = struct.calcsize(layout)
    if len(payload) < size or (whole and len(payload) != size):
        raise _Refused(f"a control frame of type {kind} with {len(payload)} bytes")
    fields = struct.unpack_from(layout, payload)
    if kind in (_SYN_STREAM, _SYN_REPLY, _HEADERS):
        return (fields[0] & 0x7FFFFFFF,)
    return fields


def write_headers(headers: Mapping[str, str]) -> bytes:
    """A header block before compression (section 2.6.10): names in lower case."""
    parts = [struct.pack(">I", len(headers))]
    for name, value in headers.items():
        for text in (name.lower().encode("latin-1"), value.encode("latin-1")):
            parts += [struct.pack(">I", len(text)), text]
    return b"".join(parts)


def read_headers(plain: bytes) -> dict[str, str]:
    """The names and values of an inflated block; names become lower case, a name may stand there once."""
    position = 0

    def number() -> int:
        nonlocal position
        if position + 4 > len(plain):
            raise _Refused("a header block that ends too early")
        (value,) = struct.unpack_from(">I", plain, position)
        position += 4
        return int(value)

    def text() -> str:
        nonlocal position
        length = number()
        if position + length > len(plain):
            raise _Refused("a header block that ends too early")
        value = plain[position : position + length].decode("latin-1")
        position += length
        return value

    count = number()
    if count > MAX_HEADERS:
        raise _Refused(f"a header block of {count} names; {MAX_HEADERS} is the limit")
    headers: dict[str, str] = {}
    for _ in range(count):
        name, value = text().lower(), text()
        if not name or name in headers:
            raise _Refused(f"a header block with the name {name[:40]!r} twice or empty")
        headers[name] = value
    if position != len(plain):
        raise _Refused("a header block with more bytes than its count of names says")
    return headers
