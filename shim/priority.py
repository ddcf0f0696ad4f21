"""Who runs first when processors are scarce: the threads that answer, before the work that they begin.

On a busy node every call crosses several threads, and each crossing waits for a processor. Pulls, plugins and
runtimes want the processors for long, the daemon's own threads for microseconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

NICE: Final = -10

GROUP_NICE: Final = -5
"""For the daemon's group, in which its short-lived children are too; monitors leave it, and containers."""


def prefer() -> None:
    """Raise every thread that there is now. What they start, threads and processes, is ordinary again.

    Call it once the servers listen and before anything that takes long has begun. Nothing happens where the
    daemon may not (CAP_SYS_NICE).
    """
    python = {thread.native_id for thread in threading.enumerate()}
    try:
        for name in os.listdir("/proc/self/task"):  # noqa: PTH208 - names only
            with contextlib.suppress(ProcessLookupError):
                _raise(int(name), starts_others=int(name) in python)
        # Outside any cgroup of the cpu controller the kernel shares by sessions first (sched(7), autogroup).
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/self/autogroup").write_text(str(GROUP_NICE))
    except OSError as error:
        log.info("the daemon runs at ordinary priority", extra={"error": str(error)})


def _raise(thread: int, *, starts_others: bool) -> None:
    if starts_others:  # gRPC's threads start only their like
        # A negative nice value is 0 again in what such a thread starts (sched(7)).
        os.sched_setscheduler(thread, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, thread, NICE)
