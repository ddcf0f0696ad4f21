"""Output as lines of a container's log file: `TIME STREAM TAG CONTENT`. Bytes in, bytes out.

The reading side is `oci/logline.py`. Format: Kubernetes, "Container log files" of the CRI.
"""

from __future__ import annotations

import time

LONGEST = 16 * 1024
"""Bytes of content in one line of the file; longer lines are cut into parts tagged P."""


def stamp(nanoseconds: int) -> bytes:
    """A time since the Unix epoch as RFC 3339 with all nine digits, UTC."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return b"%s.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode(), rest)


def lines(data: bytes, stream: bytes, at: bytes) -> bytes:
    """What to append for a piece of output. An end without a newline is tagged P: its line may go on."""
    full, part = b"%s %s F " % (at, stream), b"%s %s P " % (at, stream)
    pieces = data.split(b"\n")
    last = pieces.pop()
    made: list[bytes] = []
    for piece in pieces:
        rest = piece
        while len(rest) > LONGEST:
            made += (part, rest[:LONGEST], b"\n")
            rest = rest[LONGEST:]
        made += (full, rest, b"\n")
    while last:
        made += (part, last[:LONGEST], b"\n")
        last = last[LONGEST:]
    return b"".join(made)
