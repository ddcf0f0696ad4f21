"""The exit status of `crisp`, but for `run` and `exec`, which end as the container's process did."""

from __future__ import annotations

from oci.errors import Absent, BadInput, Busy, CrispError

OK = 0
FAILED = 1
USAGE = 2
ABSENT = 3
BUSY = 4  # the daemon is not there, or recovers, or another operation holds the object
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_BY_KIND = {Absent.kind: ABSENT, BadInput.kind: USAGE, Busy.kind: BUSY}


def status_of(error: CrispError) -> int:
    """What `crisp` ends with when it gives up with this error."""
    return _BY_KIND.get(error.kind, FAILED)
