"""Lines of container log files, and the output that they stand for.

Format: Kubernetes, "Container log files" of the CRI: `TIME STREAM TAGS CONTENT`. A tag P means that the
container's line goes on in the next line of the same stream; the last piece has F. Knows bytes, no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from oci.errors import BadInput

PIECE_LIMIT = 256 * 1024
"""Bytes of an unfinished line that are held back until its end comes."""

_LINE = re.compile(rb"(\S+) (stdout|stderr) ([FP])(?::\S*)?(?: (.*))?\Z", re.DOTALL)
_TIME = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))\Z", re.IGNORECASE
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of the file. `time` as it is written (RFC 3339), `content` without the newline."""

    time: bytes
    stream: str  # "stdout" or "stderr"
    partial: bool
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What the container wrote. `time` is that of its first piece, b"" where an earlier output goes on."""

    time: bytes
    stream: str
    content: bytes  # with the newline, if the container wrote one


def parse(line: bytes) -> LogLine:
    """A line without its newline. Raises BadInput for one that no runtime writes."""
    match = _LINE.match(line)
    if match is None or _TIME.match(match[1]) is None:
        raise BadInput(f"log line: {line[:80]!r} is not TIME STREAM TAG CONTENT")
    return LogLine(time=match[1], stream=match[2].decode(), partial=match[3] == b"P", content=match[4] or b"")


def nanoseconds(time: bytes) -> int:
    """An RFC 3339 time as ns since the Unix epoch. Raises BadInput."""
    match = _TIME.match(time)
    try:
        if match is None:
            raise ValueError
        moment = datetime.fromisoformat(match[1].decode().upper()).replace(tzinfo=UTC)
    except ValueError:
        raise BadInput(f"time {time[:40]!r}: not RFC 3339, such as 2026-01-31T12:00:00Z") from None
    since = moment - _EPOCH
    seconds = since.days * 86400 + since.seconds
    if match[3]:
        offset = (int(match[4]) * 60 + int(match[5])) * 60
        seconds -= offset if match[3] == b"+" else -offset
    return seconds * 10**9 + int((match[2] or b"").ljust(9, b"0"))


@dataclass(slots=True)
class Joiner:
    """Puts the pieces of each stream together again, holding back at most `PIECE_LIMIT` bytes of each."""

    _pending: dict[str, Output] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)  # streams whose line was begun and given out in part

    def feed(self, line: LogLine) -> Iterator[Output]:
        """What is complete with this line."""
        before = self._pending.pop(line.stream, None)
        if before is None:
            output = Output(
                time=b"" if line.stream in self._open else line.time,
                stream=line.stream,
                content=line.content,
            )
        else:
            output = Output(time=before.time, stream=line.stream, content=before.content + line.content)
        if not line.partial:
            self._open.discard(line.stream)
            yield Output(time=output.time, stream=output.stream, content=output.content + b"\n")
        elif len(output.content) >= PIECE_LIMIT:
            self._open.add(line.stream)
            yield output
        else:
            self._pending[line.stream] = output

    def flush(self) -> Iterator[Output]:
        """What is held back: the container's output ended without a newline, or it waits at a prompt."""
        pending, self._pending = self._pending, {}
        for output in pending.values():
            self._open.add(output.stream)
            yield output
