"""What the daemon and the process that makes layers ready say to each other, over two pipes.

To the process go frames: a length, then a pickled job with its number, or a number alone: this job is not
wanted any more. From it come lines of JSON, since it has read what strangers sent: nothing but these shapes
is taken from it.
"""

from __future__ import annotations

import json
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from oci.errors import Absent, BadInput, Busy, CrispError, Deadline, Full, Internal, Unsupported
from shim.images.checking import Checked, Part
from shim.images.fetching import Job
from shim.images.progress import Phase
from shim.images.receive import Received

_LENGTH: Final = struct.Struct(">I")
_KINDS: Final = {kind.kind: kind for kind in (Absent, BadInput, Busy, Deadline, Full, Internal, Unsupported)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    received: int  # compressed bytes
    total: int  # 0 where the job knows no better than who sent it
    phase: Phase
    kept: int = 0  # of those received, what an earlier try had left


@dataclass(frozen=True, slots=True)
class Ended:
    """The job was cancelled and has left nothing."""


Event = Progress | Received | Checked | CrispError | Ended


def frame(number: int, job: Job | None) -> bytes:
    """A job for the process; None ends the one of that number."""
    body = pickle.dumps((number, job))
    return _LENGTH.pack(len(body)) + body


def read_frame(stream: BinaryIO) -> tuple[int, Job | None] | None:
    """The next frame; None when the daemon has closed the pipe or died. Blocking."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    length = _LENGTH.unpack(head)[0]
    body = stream.read(length)
    if len(body) < length:
        return None
    number, job = pickle.loads(body)  # noqa: S301 - from the daemon alone: the pipe has no name
    return number, job


def line(number: int, event: Event) -> bytes:
    """An event of the process."""
    return json.dumps([number, *_shape(event)], separators=(",", ":")).encode("ascii") + b"\n"


def _shape(event: Event) -> list[Any]:
    match event:
        case Progress():
            return ["progress", event.received, event.total, event.phase.value, event.kept]
        case Received():
            implied = [path.decode("latin-1") for path in event.implied]
            blob = "" if event.blob is None else str(event.blob)
            return ["done", str(event.tar), str(event.index), event.inodes, implied, blob, event.seal]
        case Checked():
            return ["checked", event.part.value, event.problem, event.read, event.seal]
        case Ended():
            return ["ended"]
        case CrispError():
            return ["failed", event.kind, event.message, event.token]


def read_line(text: bytes) -> tuple[int, Event]:
    """The number of the job and what happened to it. Raises ValueError for what `line` does not make."""
    match json.loads(text):
        case [int(number), "progress", int(received), int(total), str(phase), int(kept)]:
            return number, Progress(received=received, total=total, phase=Phase(phase), kept=kept)
        case [int(number), "done", str(tar), str(index), int(inodes), [*implied], str(blob), str(seal)]:
            return number, Received(
                tar=Path(tar),
                index=Path(index),
                inodes=inodes,
                implied=tuple(str(path).encode("latin-1") for path in implied),
                blob=Path(blob) if blob else None,
                seal=seal,
            )
        case [int(number), "checked", str(part), str(problem), int(read), str(seal)]:
            return number, Checked(part=Part(part), problem=problem, read=read, seal=seal)
        case [int(number), "ended"]:
            return number, Ended()
        case [int(number), "failed", str(kind), str(message), str(token)]:
            return number, _KINDS.get(kind, Internal)(message, token=token)
    raise ValueError(f"not an event: {text[:200]!r}")
