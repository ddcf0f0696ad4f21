"""The cgroups that execs have within their container's, so that nothing they start can hide.

A process cannot leave its cgroup by double fork, setsid or by closing its output. On version 2 a group is a
child of the container's; on version 1 it is one in the freezer hierarchy alone, which neither accounts nor
is watched by kubelet's cAdvisor, and only for runtimes that take a group by controller. Groups are kept while
their container lives and used again once they are empty: no directory comes and goes with every probe.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from oci.errors import Absent
from oci.features import ExecGroup
from shim import process
from shim.cgroups import Hierarchies
from shim.records import ProcessRef

PREFIX: Final = "crisp-exec-"
MOST: Final = 256
"""Groups of one container: execs at the same time, and those that left a daemon behind. More have none."""
_FREEZER: Final = "freezer"


@dataclass(slots=True)
class _Groups:
    """One container's: numbers that are empty, in use, and left with processes in them."""

    free: set[int] = field(default_factory=set)
    used: set[int] = field(default_factory=set)
    left: set[int] = field(default_factory=set)


class ExecGroups:
    """Gives each exec of a container a group of its own. Functions block for microseconds."""

    def __init__(self, hierarchies: Hierarchies, *, support: ExecGroup) -> None:
        self._root: Path | None = None
        self._controller = ""
        if hierarchies.unified:
            self._root = hierarchies.v2 if support is not ExecGroup.NONE else None
        elif support is ExecGroup.CONTROLLER:
            self._root = hierarchies.of(_FREEZER)
            self._controller = f"{_FREEZER}:"
        self._containers: dict[str, _Groups] = {}

    def take(self, cgroup: str) -> int | None:
        """The number of an empty group of the container with this cgroup, None where there can be none."""
        if self._root is None or not cgroup.strip("/"):
            return None
        groups = self._containers.setdefault(cgroup, _Groups())
        for number in [number for number in groups.left if not self._members(cgroup, number)]:
            groups.left.discard(number)
            groups.free.add(number)
        while True:
            number = min(groups.free, default=len(groups.used) + len(groups.left))
            if number >= MOST:
                return None
            groups.free.discard(number)
            if not self._make(cgroup, number):
                groups.free.add(number)
                return None
            if not self._members(cgroup, number):
                groups.used.add(number)
                return number
            groups.left.add(number)  # of a life of the daemon before this one

    def give_back(self, cgroup: str, number: int) -> None:
        """An exec is over. What it left behind, as it may, keeps the group for itself."""
        groups = self._containers.get(cgroup)
        if groups is None:
            return
        groups.used.discard(number)
        (groups.left if self._members(cgroup, number) else groups.free).add(number)

    def forget(self, cgroup: str) -> None:
        """The container is gone, and its groups with it."""
        self._containers.pop(cgroup, None)

    def argument(self, number: int) -> str:
        """What the runtime's `exec --cgroup` is given."""
        return f"{self._controller}{PREFIX}{number}"

    def members(self, cgroup: str, number: int) -> list[ProcessRef]:
        """Who is alive in a group."""
        found = []
        for pid in self._members(cgroup, number):
            with contextlib.suppress(Absent):
                found.append(process.reference(pid))
        return [ref for ref in found if process.alive(ref)]

    def kill(self, cgroup: str, number: int) -> list[ProcessRef]:
        """Kill all in a group, faster than they can fork; whom. Some may still be on their way out."""
        found = self.members(cgroup, number)
        if self._root is None or not found:
            return []
        group = self._path(cgroup, number)
        if _write(group / "cgroup.kill", "1"):  # version 2, Linux 5.14
            return found
        # Killed while frozen they cannot fork before they die; without the freezer it takes a few rounds.
        freezing = _write(group / "freezer.state", "FROZEN")
        try:
            for ref in found if not freezing else self.members(cgroup, number):
                process.signal(ref, signal.SIGKILL)
        finally:
            if freezing:
                _write(group / "freezer.state", "THAWED")
        return found

    def _make(self, cgroup: str, number: int) -> bool:
        """Whether the group is there; not where the container's own is not."""
        try:
            self._path(cgroup, number).mkdir(mode=0o755)
        except FileExistsError:
            return True
        except OSError:
            return False
        return True

    def _members(self, cgroup: str, number: int) -> list[int]:
        """Processes, those in groups below too: an exec may have made some."""
        found: list[int] = []
        waiting = [] if self._root is None else [self._path(cgroup, number)]
        while waiting:
            group = waiting.pop()
            try:
                words = (group / "cgroup.procs").read_text("ascii").split()
                below = [entry.path for entry in os.scandir(group) if entry.is_dir(follow_symlinks=False)]
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                    raise
                continue
            waiting += map(Path, below)
            found += [int(word) for word in words if word != "0"]  # 0: of another pid namespace
        return found

    def _path(self, cgroup: str, number: int) -> Path:
        assert self._root is not None
        return self._root.joinpath(*cgroup.strip("/").split("/"), f"{PREFIX}{number}")


def _write(path: Path, text: str) -> bool:
    """Whether the kernel took it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, text.encode("ascii"))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
