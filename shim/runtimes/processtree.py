"""Which processes an exec has started inside a container, and ending them all.

Killing `runc exec` or `crun exec` leaves the process in the container alive, so its whole tree is found here:
by parent, by session (the runtimes give each exec one of its own) and by the output pipes that it holds. What
left the session, lost its parent and closed its output is a daemon that the exec meant to leave behind: from
outside it cannot be told from the container's other processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from shim import process
from shim.records import ProcessRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A process as /proc/PID/stat shows it (proc(5)): fields 1, 3, 4, 6 and 22."""

    pid: int
    state: str
    parent: int
    session: int
    start_time: int

    @property
    def reference(self) -> ProcessRef:
        return ProcessRef(pid=self.pid, start_time=self.start_time)


def parse_entry(line: bytes) -> Entry:
    """One /proc/PID/stat line; the command's name may hold anything, so fields count from the last ')'."""
    head, _, rest = line.rpartition(b")")
    fields = rest.split()
    return Entry(
        pid=int(head.split(b" ", 1)[0]),
        state=fields[0].decode("ascii"),
        parent=int(fields[1]),
        session=int(fields[3]),
        start_time=int(fields[19]),
    )


def read_entry(pid: int) -> Entry | None:
    """A process that exists, a zombie too; None when there is none of that number. Blocking."""
    try:
        return parse_entry(Path(f"/proc/{pid}/stat").read_bytes())
    except OSError:
        return None


def began(entry: Entry) -> float:
    """When a process began, in seconds since the epoch, as far as the clock has not been set since."""
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + entry.start_time / os.sysconf("SC_CLK_TCK")


def read_table() -> dict[int, Entry]:
    """Every process of the machine. Blocking, some 10 microseconds for each."""
    with os.scandir("/proc") as listing:
        found = [read_entry(int(each.name)) for each in listing if each.name.isdigit()]
    return {entry.pid: entry for entry in found if entry is not None}


def with_argument(word: str) -> list[ProcessRef]:
    """The processes that have this word among their arguments. Blocking."""
    wanted, found = os.fsencode(word), []
    for entry in read_table().values():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{entry.pid}/cmdline").read_bytes().split(b"\0"):
                found.append(entry.reference)
    return found


def members(table: dict[int, Entry], roots: Iterable[int], session: int) -> set[int]:
    """The roots that exist, all their descendants, and everyone of the session (0 is none)."""
    children: dict[int, list[int]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    waiting = [pid for pid in roots if pid in table]
    waiting += [entry.pid for entry in table.values() if session and entry.session == session]
    found: set[int] = set()
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def pipes_of(pid: int) -> frozenset[int]:
    """The inodes of the pipes that a process has open. Blocking."""
    return frozenset(_pipes(pid))


def _pipes(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as listing:
        for each in listing:
            with contextlib.suppress(OSError):
                link = str(Path(each.path).readlink())
                if link.startswith("pipe:["):
                    yield int(link[6:-1])


def holders(pids: Iterable[int], pipes: frozenset[int]) -> set[int]:
    """Those of `pids` that have one of the pipes open. Blocking."""
    return {pid for pid in pids if not pipes.isdisjoint(pipes_of(pid))}


async def kill_all(
    find: Callable[[], Iterable[ProcessRef]],
    *,
    io: Executor,
    timeout: float,  # noqa: ASYNC109
    together: Callable[[], object] = lambda: None,
) -> int:
    """Kill what `find` finds (in a thread) until it finds nothing alive; how many were killed.

    `together` kills those it can reach at one stroke, before each of them gets its signal. It is no part of
    `find`: what is dead by the time that it is looked at would not count. Gives up after `timeout` seconds:
    what is left then hangs in the kernel.
    """
    loop = asyncio.get_running_loop()
    until = time.monotonic() + timeout
    killed: set[ProcessRef] = set()
    while time.monotonic() < until:
        found = await loop.run_in_executor(io, lambda: [ref for ref in find() if process.alive(ref)])
        if not found:
            break
        together()
        for ref in found:
            process.signal(ref, signal.SIGKILL)
        killed.update(found)
        left = max(until - time.monotonic(), 0)
        await asyncio.gather(*(process.wait_gone(ref, left) for ref in found))
    return len(killed)
