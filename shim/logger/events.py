"""What shims publish, taken apart and answered. Bytes in, bytes out: no IO, and no protobuf, which is large.

Source: containerd/ttrpc, PROTOCOL.md (a frame is ten bytes, big-endian: length, stream, type, flags, and its
payload); protobuf's encoding; `proto/events.proto` and `proto/task_events.proto`. Every event is taken; the
one that says what nobody else can say is `/tasks/oom`.
"""

from __future__ import annotations

import struct

SERVICE = b"containerd.services.events.ttrpc.v1.Events"
METHOD = b"Forward"
OOM = b"/tasks/oom"
LONGEST = 4 * 1024 * 1024  # bytes of a payload

_HEADER = struct.Struct(">IIBB")
_REQUEST, _RESPONSE = 1, 2
_UNIMPLEMENTED, _INVALID = 12, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Conversation:
    """One publisher's connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes) -> tuple[bytes, list[bytes]]:
        """What to send back, and the containers that were said to have been killed for want of memory.

        Raises ValueError when the publisher breaks the protocol: it is to be cut off.
        """
        self._buffer += data
        answers, killed = bytearray(), []
        while len(self._buffer) >= _HEADER.size:
            length, stream, type_, _ = _HEADER.unpack_from(self._buffer)
            if type_ != _REQUEST or length > LONGEST:
                raise ValueError(f"frame of type {type_} with {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            response, container = _serve(payload)
            answers += _HEADER.pack(len(response), stream, _RESPONSE, 0) + response
            if container:
                killed.append(container)
        return bytes(answers), killed


def _serve(payload: bytes) -> tuple[bytes, bytes]:
    """The response to a request; an empty one is success with an empty message."""
    try:
        request = fields(payload)
        if (request.get(1), request.get(2)) != (SERVICE, METHOD):
            return _status(_UNIMPLEMENTED, b"only events are taken here"), b""
        envelope = fields(fields(request.get(3, b"")).get(1, b""))
        if envelope.get(3) != OOM:
            return b"", b""
        return b"", fields(fields(envelope.get(4, b"")).get(2, b"")).get(1, b"")
    except ValueError:
        return _status(_INVALID, b"the event cannot be read"), b""


def _status(code: int, words: bytes) -> bytes:
    """A response with a status; everything is shorter than 128 bytes, whose length is one byte."""
    status = bytes((1 << 3 | _VARINT, code, 2 << 3 | _BYTES, len(words))) + words
    return bytes((1 << 3 | _BYTES, len(status))) + status


def fields(message: bytes) -> dict[int, bytes]:
    """A message's strings, bytes and messages by number, the last of each. Raises ValueError."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("cut off")
        if kind == _BYTES:
            found[key >> 3] = message[at : at + size]
        at += size
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("no number")
