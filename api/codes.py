"""The one place that knows gRPC's codes: kinds of failure to codes, and back for clients."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import grpc

from oci.errors import (
    Absent,
    BadInput,
    Busy,
    CrispError,
    Deadline,
    Duplicate,
    Full,
    Internal,
    Unsupported,
    Untrusted,
    WrongState,
)

CODES: dict[str, grpc.StatusCode] = {
    Absent.kind: grpc.StatusCode.NOT_FOUND,
    Duplicate.kind: grpc.StatusCode.ALREADY_EXISTS,
    WrongState.kind: grpc.StatusCode.FAILED_PRECONDITION,
    BadInput.kind: grpc.StatusCode.INVALID_ARGUMENT,
    Busy.kind: grpc.StatusCode.UNAVAILABLE,
    Deadline.kind: grpc.StatusCode.DEADLINE_EXCEEDED,
    Full.kind: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unsupported.kind: grpc.StatusCode.UNIMPLEMENTED,
    Untrusted.kind: grpc.StatusCode.PERMISSION_DENIED,
    Internal.kind: grpc.StatusCode.INTERNAL,
}

_KINDS: dict[grpc.StatusCode, type[CrispError]] = {
    grpc.StatusCode.NOT_FOUND: Absent,
    grpc.StatusCode.ALREADY_EXISTS: Duplicate,
    grpc.StatusCode.FAILED_PRECONDITION: WrongState,
    grpc.StatusCode.INVALID_ARGUMENT: BadInput,
    grpc.StatusCode.UNAVAILABLE: Busy,
    grpc.StatusCode.DEADLINE_EXCEEDED: Deadline,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Full,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
}

# A status message travels in the trailers, percent-encoded. gRPC's C core starts to refuse trailers at
# 8 KiB in all, and then the caller sees neither code nor message.
_MESSAGE_LIMIT = 6000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a failed call ends on the wire. `reference` names the log record of an unforeseen error."""

    code: grpc.StatusCode
    message: str
    kind: str
    reference: str = ""


def outcome(error: Exception) -> Outcome:
    """What the caller is told. Only foreseen errors show their text; the others a reference into the log."""
    if isinstance(error, CrispError):
        # kubelet reads the token at position 0 of the message and expects UNKNOWN with it.
        code = grpc.StatusCode.UNKNOWN if error.token else CODES[error.kind]
        return Outcome(code=code, message=fit(str(error)), kind=error.kind)
    reference = secrets.token_hex(4)
    return Outcome(
        code=grpc.StatusCode.INTERNAL,
        message=f"internal error ({type(error).__name__}), see {reference} in crispd's log",
        kind=Internal.kind,
        reference=reference,
    )


def fit(message: str) -> str:
    """`message` as valid UTF-8, with its middle left out where it would not fit into the trailers."""
    message = message.encode("utf-8", "backslashreplace").decode()
    if _encoded(message) <= _MESSAGE_LIMIT:
        return message
    # The stage and the path stand at the beginning, the cause at the end.
    head, tail = _prefix(message, _MESSAGE_LIMIT * 2 // 3), _prefix(message[::-1], _MESSAGE_LIMIT // 4)[::-1]
    return f"{head} [...] {tail}"


def _encoded(text: str) -> int:
    """Bytes that the text takes when percent-encoded as gRPC does it (PROTOCOL-HTTP2, Percent-Byte)."""
    return sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in text.encode())


def _prefix(text: str, limit: int) -> str:
    room = limit
    for index, character in enumerate(text):
        room -= _encoded(character)
        if room < 0:
            return text[:index]
    return text


def error_from(code: grpc.StatusCode, message: str) -> CrispError:
    """The kind that a client should raise for a code; what has no kind is Internal."""
    return _KINDS.get(code, Internal)(message)
