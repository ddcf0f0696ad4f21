"""What the machine holds, seen from outside the daemon, so that a test can say what it left behind.

Looks only at the kernel (proc, cgroupfs, interface names, iptables-save) and at directories; it knows no
code of the product and trusts none of its records. Every entry is text: two inventories compare by value, and
a difference reads as a sentence. Needs root for other processes' namespaces and descriptors.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tests.machine import PATIENCE

RUNTIME_PROGRAMS = frozenset(
    {"conmon", "runc", "crun", "youki", "runsc", "catatonit", "crispd", "containerd-shim"}
    | {"bridge", "host-local", "portmap", "loopback", "ptp"}
)
"""Program names (comm) that only a container runtime starts; a new one is counted whoever its parent is."""

_ADDRESS = re.compile(r"[0-9a-f.:]+\Z")
_OURS_IN_FIREWALL = re.compile(r"CNI-(?:DN-|SN-)?[0-9a-f]{16,}|\bcrisp\b", re.IGNORECASE)
_MUST_STAY = frozenset({"mount", "network namespace", "link"})
_GONE = (FileNotFoundError, ProcessLookupError, NotADirectoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where to look besides the whole machine.

    `directories` are state and run directories: every path below them counts, and so does a process that
    names one in its argv. `leases` are host-local's directories. `daemon` is the pid whose open descriptors
    are counted. `expected` are shell patterns of entries ("link crisp0") that may come and go.
    """

    directories: tuple[Path, ...] = ()
    leases: tuple[Path, ...] = (Path("/var/lib/cni/networks"),)
    daemon: int | None = None
    expected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Entries by kind, each with how often it is there."""

    entries: Mapping[str, Counter[str]] = field(default_factory=dict)


def take(scope: Scope = Scope()) -> Inventory:
    """Look at everything once. Takes some ten milliseconds; what ends while it looks is left out."""
    found = {
        "mount": mounts(),
        "network namespace": network_namespaces(),
        "link": links(),
        "lease": leases(scope.leases),
        "cgroup": cgroups(),
        "process": processes(scope.directories),
        "firewall": firewall(),
        "path": paths(scope.directories),
        "descriptor": descriptors(scope.daemon) if scope.daemon is not None else (),
    }
    return Inventory(entries={kind: Counter(entries) for kind, entries in found.items()})


def diff(before: Inventory, after: Inventory, *, expected: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What is there now and was not, and what of the machine's own is gone, as sorted sentences."""
    sentences = []
    for kind, now in after.entries.items():
        then = before.entries.get(kind, Counter())
        new = (entry for entry in (now - then).elements() if kind != "cgroup" or _is_ours(entry, then))
        sentences += [f"{kind} {entry}" for entry in new]
        if kind in _MUST_STAY:
            sentences += [f"{kind} {entry} is gone" for entry in (then - now).elements()]
    return tuple(sorted(s for s in sentences if not any(fnmatchcase(s, pattern) for pattern in expected)))


def _is_ours(group: str, then: Counter[str]) -> bool:
    """Below a group that was there before, others make groups too, unless its path bears our name.

    The parent of pods that name none is made once, and stays for every daemon of the machine.
    """
    if group.endswith(("/crisp", "/crisp.slice")):
        return False
    return "crisp" in group or not any(str(parent) in then for parent in Path(group).parents)


def settled(before: Inventory, scope: Scope, *, grace: float = 5.0 * PATIENCE) -> tuple[str, ...]:
    """The difference once it is empty, or what is left of it after `grace` seconds.

    The kernel tears network namespaces and cgroups down after the last process is gone, and whoever reaps
    orphans may take two seconds; nothing tells when, so this looks again until the time is up.
    """
    deadline = time.monotonic() + grace
    while True:
        left = diff(before, take(scope), expected=scope.expected)
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.05)


def mounts() -> Iterator[str]:
    """Every mount of this mount namespace: its point, type and root (proc_pid_mountinfo(5))."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        yield f"{fields[4]} ({right.split(' ')[0]} {fields[3]})"


def network_namespaces() -> Iterator[str]:
    yield from _names(Path("/run/netns"))


def links() -> Iterator[str]:
    """Network interfaces of this network namespace, without the `@peer` that netlink shows."""
    for _, name in socket.if_nameindex():
        yield name


def leases(directories: Iterable[Path]) -> Iterator[str]:
    """Files that host-local names after an address, in each network's directory."""
    for directory in directories:
        for network in _names(directory):
            for name in _names(directory / network):
                if _ADDRESS.match(name) and any(mark in name for mark in ".:"):
                    yield f"{name} of {network} in {directory}"


def cgroups() -> Iterator[str]:
    """Every group of every mounted hierarchy, version 1 and 2."""
    seen = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split(" ")[0] in ("cgroup", "cgroup2"):
            seen.add(left.split(" ")[4])
    for top in sorted(seen):
        for directory, names, _ in os.walk(top):
            for name in names:
                yield f"{directory}/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    parent: int
    start: str  # clock ticks after boot
    comm: str
    argv: bytes
    elsewhere: bool  # in another mount namespace than ours


def processes(directories: Iterable[Path] = ()) -> Iterator[str]:
    """Living processes that a runtime may have left: (pid, start time) makes each one unmistakable.

    Counted are descendants of this process, what names one of `directories` in its argv, and orphans that
    are programs which only runtimes start or that live in another mount namespace than ours, as containers
    do. What has a living parent besides is its parent's to answer for.
    """
    marks = [os.fsencode(str(directory)) for directory in directories]
    table = dict(_process_table())
    for pid, process in sorted(table.items()):
        if pid == os.getpid():
            continue
        orphan = process.parent <= 1
        if (
            (orphan and (process.elsewhere or process.comm in RUNTIME_PROGRAMS))
            or any(mark in process.argv for mark in marks)
            or os.getpid() in _ancestors(process.parent, table)
        ):
            words = process.argv.decode(errors="replace").replace("\0", " ").strip()
            yield f"{pid} started {process.start}: {process.comm}: {words[:160]}"


def _process_table() -> Iterator[tuple[int, _Process]]:
    here = Path("/proc/self/ns/mnt").readlink()
    for name in _names(Path("/proc")):
        top = Path("/proc", name)
        if not name.isdigit():
            continue
        try:
            stat = (top / "stat").read_text(errors="replace")
            argv = (top / "cmdline").read_bytes()
            elsewhere = (top / "ns/mnt").readlink() != here
        except _GONE:
            continue
        except PermissionError:  # the machine's first process may be out of reach
            elsewhere = False
        comm, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
        if rest[0] not in "ZX":  # a zombie is dead, whoever is late to reap it
            yield (
                int(name),
                _Process(parent=int(rest[1]), start=rest[19], comm=comm, argv=argv, elsewhere=elsewhere),
            )


def _ancestors(pid: int, table: Mapping[int, _Process]) -> Iterator[int]:
    while pid in table:
        yield pid
        pid = table[pid].parent


def firewall() -> Iterator[str]:
    """Rules and chains of address translation that are one pod's or one network's.

    Those are what names a CNI plugin's hashed chain or has a comment of ours; base chains may stay.
    """
    for program in ("iptables-save", "ip6tables-save"):
        found = shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
        if found is None:
            continue
        saved = subprocess.run(
            [found, "-t", "nat"], capture_output=True, text=True, check=False, timeout=10 * PATIENCE
        )
        for line in saved.stdout.splitlines():
            if not line.startswith("#") and _OURS_IN_FIREWALL.search(line):
                yield re.sub(r" \[\d+:\d+\]$", "", line) + f" ({program})"


def paths(directories: Iterable[Path]) -> Iterator[str]:
    """Everything below the directories, not followed through links."""
    for top in directories:
        for directory, names, files in os.walk(top):
            for name in (*names, *files):
                yield f"{directory}/{name}"


def descriptors(pid: int) -> Iterator[str]:
    """What the process has open: `socket` or `anon_inode:[pidfd]` without numbers, files by their path."""
    for name in _names(Path(f"/proc/{pid}/fd")):
        try:
            target = str(Path(f"/proc/{pid}/fd/{name}").readlink())
        except _GONE:
            continue
        yield re.sub(r"^(socket|pipe|net|mnt|ipc|uts|pid|user|cgroup):\[\d+\]$", r"\1", target)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except _GONE:
        return []
