"""Processes by descriptor: a pid that cannot be mistaken for a later one (pidfd_open(2), proc(5) stat)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from shim.records import ProcessRef

_DEAD = frozenset("ZXx")


def parse_stat(line: bytes) -> tuple[str, int]:
    """State letter and start time (clock ticks after boot) of one /proc/PID/stat line.

    The command name may hold spaces and parentheses, so fields are counted from the last ')'.
    Raises ValueError for text that is no stat line.
    """
    _, found, rest = line.rpartition(b")")
    fields = rest.split()
    if not found or len(fields) < 20:
        raise ValueError(f"not a /proc/PID/stat line: {line[:80]!r}")
    return fields[0].decode("ascii"), int(fields[19])


def read_stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time of a process, None when there is none."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_stat(line)


def is_dead(state: str) -> bool:
    """Whether a state letter means that no code of the process runs any more (zombie or dead)."""
    return state in _DEAD


def open_process(ref: ProcessRef) -> int | None:
    """A pidfd of exactly that process (close-on-exec), None when it is gone or its number is another's."""
    try:
        descriptor = os.pidfd_open(ref.pid)
    except (ProcessLookupError, ValueError):
        return None
    except OSError:
        # EINVAL: the number is that of a thread now, so the process itself is gone
        if read_stat(ref.pid) is None or not _same(ref):
            return None
        raise
    if _same(ref):
        return descriptor
    os.close(descriptor)
    return None


def _same(ref: ProcessRef) -> bool:
    stat = read_stat(ref.pid)
    return stat is not None and stat[1] == ref.start_time


def send(descriptor: int, number: int) -> bool:
    """Send a signal through a pidfd; False when the process is gone."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    return True


def on_exit(descriptor: int, callback: Callable[[], None]) -> Callable[[], None]:
    """Call `callback` once, on the running loop, when the process of the pidfd has ended.

    Returns the function that stops watching (any number of calls). The descriptor stays the caller's and
    must stay open until then.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(descriptor)

    def ended() -> None:
        stop()
        callback()

    loop.add_reader(descriptor, ended)
    return stop
