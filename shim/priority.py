"""Who runs first when processors are scarce: the threads that answer, before the work that they begin.

On a busy node every call crosses several threads, and each crossing waits for a processor. Pulls, plugins and
runtimes want the processors for long, the daemon's own threads for microseconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

NICE: Final = -10

GROUP_NICE: Final = -5
"""For the daemon's group, in which its short-lived children are too; monitors leave it, and containers."""


def prefer() -> None:
    """Raise every thread that there is now, and with them those that they will start; no child of theirs.

    All of them, because they share the interpreter: one of ordinary priority that has its lock and waits for
    a processor holds up those that answer. So what takes a processor for long belongs into a process of its
    own. Nothing happens where the daemon may not (CAP_SYS_NICE).
    """
    try:
        for name in os.listdir("/proc/self/task"):  # noqa: PTH208 - names only
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, int(name), NICE)
        # Outside any cgroup of the cpu controller the kernel shares by sessions first (sched(7), autogroup).
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/self/autogroup").write_text(str(GROUP_NICE))
    except OSError as error:
        log.info("the daemon runs at ordinary priority", extra={"error": str(error)})


def ordinary_children() -> None:
    """What the calling thread starts from now on has no raised priority of this thread's (sched(7))."""
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
