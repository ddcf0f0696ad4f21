"""Changing the limits of a live container by the driver's own way, and back to what was on any failure.

A runtime sets one file after the other and stops at the first that the kernel refuses; which of them undo
what they did differs. So the files are read before and put back after a failure. Runtimes also differ in
hugepages and version 2's own files, which are written here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, Final

from oci.errors import WrongState
from oci.workload import ContainerId
from shim.cgroups import Hierarchies
from shim.lifecycle.undo import to_the_end
from shim.runtimes.driver import Target
from shim.threads import in_executor

log = logging.getLogger(__name__)

PutBack = Callable[[], Awaitable[None]]
Apply = Callable[[Target, Mapping[str, Any]], Awaitable[None]]

_V1: Final = (
    ("cpu", "cpu.shares"),
    ("cpu", "cpu.cfs_period_us"),
    ("cpu", "cpu.cfs_quota_us"),
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.memsw.limit_in_bytes"),
    ("cpuset", "cpuset.cpus"),
    ("cpuset", "cpuset.mems"),
)
_V2: Final = (
    "cpu.weight",
    "cpu.max",
    "memory.max",
    "memory.swap.max",
    "cpuset.cpus",
    "cpuset.mems",
)
_ROUNDS: Final = 3  # memory may not exceed memory+swap: which file goes first depends on the direction


class Limits:
    """The limits of one handler's containers. `apply` lets the runtime set an OCI linux.resources object.

    `takes_no_quota` says whether it sets a CPU quota of -1 on cgroup version 1.
    """

    def __init__(
        self,
        *,
        handler: str,
        apply: Apply,
        hierarchies: Hierarchies,
        io: Executor,
        takes_no_quota: bool = True,
    ) -> None:
        self._takes_no_quota = takes_no_quota
        self._handler = handler
        self._apply = apply
        self._hierarchies = hierarchies
        self._io = io

    async def update(self, target: Target, change: Mapping[str, Any]) -> PutBack:
        """Carry out an OCI linux.resources object; returns the way back. Raises the kernel's refusal."""
        files = self._files(target.cgroup, change)
        before = await in_executor(self._io, lambda: _read(files))
        put_back = partial(self._put_back, target.id, before)
        try:
            await self._apply(target, self._for_runtime(change))
            await in_executor(self._io, lambda: self._write_rest(target.id, target.cgroup, change))
        except BaseException:
            await to_the_end(put_back())
            raise
        return put_back

    def _files(self, cgroup: str, change: Mapping[str, Any]) -> list[Path]:
        below = cgroup.strip("/")
        if self._hierarchies.unified:
            top = self._hierarchies.v2
            names = [*_V2, *change.get("unified", {})]
            files = [] if top is None else [top / below / name for name in names]
        else:
            files = [
                root / below / name for controller, name in _V1 if (root := self._hierarchies.of(controller))
            ]
        return [*files, *(path for path, _ in self._hugepages(below, change))]

    def _for_runtime(self, change: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._no_quota(change):
            return change
        return {**change, "cpu": {name: value for name, value in change["cpu"].items() if name != "quota"}}

    def _no_quota(self, change: Mapping[str, Any]) -> bool:
        """Whether the end of the quota is to be written here."""
        wanted = change.get("cpu", {}).get("quota", 0) < 0
        return wanted and not self._takes_no_quota and not self._hierarchies.unified

    def _hugepages(self, below: str, change: Mapping[str, Any]) -> list[tuple[Path, str]]:
        top = self._hierarchies.of("hugetlb")
        ending = "max" if self._hierarchies.unified else "limit_in_bytes"
        return [
            (top / below / f"hugetlb.{one['pageSize']}.{kind}", str(one["limit"]))
            for one in change.get("hugepageLimits", [])
            for kind in (ending, f"rsvd.{ending}")
            if top is not None
        ]

    def _write_rest(self, container: ContainerId, cgroup: str, change: Mapping[str, Any]) -> None:
        below = cgroup.strip("/")
        rest = [(path, text) for path, text in self._hugepages(below, change) if path.exists()]
        cpu = self._hierarchies.of("cpu")
        if cpu is not None and self._no_quota(change):
            rest.append((cpu / below / "cpu.cfs_quota_us", "-1"))
        top = self._hierarchies.v2
        if top is not None:
            rest += [(top / below / name, text) for name, text in change.get("unified", {}).items()]
        for path, text in rest:
            try:
                _write(path, text)
            except OSError as error:
                raise WrongState(
                    f"handler {self._handler}: update of container {container}: writing {text!r} to {path}:"
                    f" {error.strerror}"
                ) from error

    async def _put_back(self, container: ContainerId, before: Mapping[Path, str]) -> None:
        left = await in_executor(self._io, lambda: _restore(before))
        if left:
            log.error(
                "limits not put back",
                extra={"container": container, "files": ", ".join(map(str, left))},
            )


def _read(files: list[Path]) -> dict[Path, str]:
    found = {}
    for path in files:
        try:
            found[path] = path.read_text("ascii")
        except OSError:
            continue  # this machine has no such limit
    return found


def _restore(before: Mapping[Path, str]) -> list[Path]:
    """The files that could not be given back their text; none when the whole group is gone."""
    left: list[Path] = []
    for _ in range(_ROUNDS):
        left = []
        for path, text in before.items():
            try:
                if path.read_text("ascii") != text:
                    _write(path, text)
            except FileNotFoundError:
                continue
            except OSError:
                left.append(path)
        if not left:
            break
    return left


def _write(path: Path, text: str) -> None:
    # Not created: in cgroupfs that is refused with EPERM, which says nothing.
    with path.open("r+b", buffering=0) as file:
        file.write(text.encode("ascii"))
