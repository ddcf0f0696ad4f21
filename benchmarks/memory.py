"""Memory and processor time of a side's processes, as the kernel accounts them (proc(5))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.sides import MARK, Side

_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


def resident(pid: int) -> float:
    """MiB that a process has in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def processor_time(pid: int) -> float:
    """Milliseconds of processor time that a process has used, without what it started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def processor_time_of_all(side: Side) -> float:
    """Milliseconds that a side's processes have used, those that they have reaped too, without the workloads.

    A process that was left to the run's init takes its time along.
    """
    used = 0
    for pid, _ in _processes(side):
        with contextlib.suppress(*_GONE):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += sum(map(int, fields[11:15]))
    return used * 1000 / os.sysconf("SC_CLK_TCK")


def proportional(side: Side) -> dict[str, float]:
    """PSS in MiB of all that a side runs but the workloads, by program name."""
    found: dict[str, float] = {}
    for pid, name in _processes(side):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except _GONE:
            continue
        pss = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        found[name] = found.get(name, 0.0) + pss / 1024
    return found


def _processes(side: Side) -> Iterator[tuple[int, str]]:
    """The daemon, whatever names the side's directory in its arguments or works there, and their children."""
    mark = os.fsencode(side.directory)
    table: dict[int, tuple[int, str, bool, bool]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            own = mark in (entry / "cmdline").read_bytes()
            # a shim of crispd's has its working directory alone there
            own = own or (entry / "cwd").readlink().is_relative_to(side.directory)
            workload = MARK.encode() in (entry / "environ").read_bytes().split(b"\0")
        except _GONE:
            continue
        comm, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
        table[int(entry.name)] = (int(rest[1]), comm, own or int(entry.name) == side.pid, workload)
    for pid, (_, comm, _, workload) in table.items():
        above = pid
        while above in table and not table[above][2]:
            above = table[above][0]
        if above in table and not workload:
            yield pid, comm
