"""ttrpc's frames: bytes in, messages out, and back. No IO, no protobuf, no memory of calls.

Source: containerd/ttrpc, PROTOCOL.md. A frame is ten bytes, big-endian (length of the payload, stream id,
type, flags), and the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from oci.errors import Internal

LONGEST: Final = 4 * 1024 * 1024
"""Bytes of a payload at most."""

REQUEST: Final = 1
RESPONSE: Final = 2
DATA: Final = 3

REMOTE_CLOSED: Final = 0x01
REMOTE_OPEN: Final = 0x02
NO_DATA: Final = 0x04

_HEADER: Final = struct.Struct(">IIBB")


class BadFrame(Internal):
    """The peer broke the protocol: the connection is of no use any more."""


class Oversized(BadFrame):
    """A frame longer than the protocol allows. Its payload can be skipped: the connection goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message. `overlong` is the length of a payload over the limit, which was skipped."""

    stream: int
    type: int
    flags: int = 0
    payload: bytes = b""
    overlong: int = 0


def encode(frame: Frame) -> bytes:
    """The frame as bytes. Raises Oversized for a payload over the limit."""
    if len(frame.payload) > LONGEST:
        raise Oversized(f"ttrpc message of {len(frame.payload)} bytes is over the limit of {LONGEST}")
    return _HEADER.pack(len(frame.payload), frame.stream, frame.type, frame.flags) + frame.payload


class Decoder:
    """Takes a connection's bytes apart, however they were split."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skipping: Frame | None = None
        self._left = 0  # bytes of an overlong payload that are still to come

    def receive(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with these bytes. Raises BadFrame for a type that does not exist.

        A payload over the limit is never kept: its frame comes out empty, with `overlong`, once it is past.
        """
        self._buffer += data
        while True:
            if self._skipping is not None:
                skipped = min(self._left, len(self._buffer))
                del self._buffer[:skipped]
                self._left -= skipped
                if self._left:
                    return
                yield self._skipping
                self._skipping = None
            if len(self._buffer) < _HEADER.size:
                return
            length, stream, type_, flags = _HEADER.unpack_from(self._buffer)
            if type_ not in (REQUEST, RESPONSE, DATA):
                raise BadFrame(f"ttrpc frame of type {type_} on stream {stream}: no such type")
            if length > LONGEST:
                del self._buffer[: _HEADER.size]
                self._left = length
                self._skipping = Frame(stream=stream, type=type_, flags=flags, overlong=length)
                continue
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield Frame(stream=stream, type=type_, flags=flags, payload=payload)

    @property
    def torn(self) -> bool:
        """Whether the connection, ending now, ends within a frame."""
        return bool(self._buffer) or self._skipping is not None
