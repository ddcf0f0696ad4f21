"""cgroup limits of a container (runtime-spec config-linux.md, "Control groups"; CRI LinuxContainerResources).

Runtimes translate these to version 2 themselves (shares to weight, memory+swap to swap).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from oci.errors import BadInput, Unsupported
from oci.facts import CgroupDriver, HostFacts
from oci.workload import Resources

_FIELD = "config.linux.resources"
_CPU_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*\Z")
_UNIFIED_KEY = re.compile(r"[a-z_][a-z0-9_]*(\.[A-Za-z0-9_-]+)+\Z")
_LEAST_SHARES, _MOST_SHARES = 2, 262144  # the kernel's own bounds (MIN_SHARES, MAX_SHARES)
_LEAST_PERIOD, _MOST_PERIOD = 1_000, 1_000_000  # µs, kernel Documentation/scheduler/sched-bwc.rst
_HIGHEST_MEMORY = (1 << 63) - 1


def resources(
    asked: Resources, host: HostFacts, *, pids_limit: int = 0, field: str = _FIELD
) -> tuple[dict[str, Any], list[str]]:
    """`linux.resources` without devices, and notes on what this machine cannot limit. `field` is its path.

    Raises BadInput naming the member, Unsupported for version 2 files on version 1.
    """
    notes: list[str] = []
    made: dict[str, Any] = {}
    if cpu := _cpu(asked, field):
        made["cpu"] = cpu
    memory, memory_notes = _memory(asked, host, field)
    notes += memory_notes
    if memory:
        made["memory"] = memory
    huge, huge_notes = _hugepages(asked, host, field)
    notes += huge_notes
    if huge:
        made["hugepageLimits"] = huge
    unified = {**_swap_for_systemd(memory, host), **_unified(asked, host, field)}
    if unified:
        made["unified"] = unified
    if pids_limit > 0:
        if host.cgroup.has("pids"):
            made["pids"] = {"limit": pids_limit}
        else:
            notes.append("pids limit left out: no pids controller is mounted")
    return made, notes


def _cpu(asked: Resources, field: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if asked.cpu_shares < 0:
        raise BadInput(f"{field}.cpu_shares: {asked.cpu_shares} is negative")
    if asked.cpu_shares:
        # The kernel clamps on version 1; the runtimes' conversion for version 2 would leave its range.
        made["shares"] = min(max(asked.cpu_shares, _LEAST_SHARES), _MOST_SHARES)
    if asked.cpu_period:
        if not _LEAST_PERIOD <= asked.cpu_period <= _MOST_PERIOD:
            raise BadInput(
                f"{field}.cpu_period: {asked.cpu_period} µs is not within {_LEAST_PERIOD} to {_MOST_PERIOD}"
            )
        made["period"] = asked.cpu_period
    if asked.cpu_quota:
        if 0 < asked.cpu_quota < _LEAST_PERIOD:
            raise BadInput(f"{field}.cpu_quota: {asked.cpu_quota} µs is under the kernel's {_LEAST_PERIOD}")
        made["quota"] = max(asked.cpu_quota, -1)
    for member, name, value in (
        ("cpuset_cpus", "cpus", asked.cpuset_cpus),
        ("cpuset_mems", "mems", asked.cpuset_mems),
    ):
        if value:
            if not _CPU_LIST.match(value):
                raise BadInput(f"{field}.{member}: {value[:80]!r} is not a list such as 0-2,4")
            made[name] = value
    return made


def _memory(asked: Resources, host: HostFacts, field: str) -> tuple[dict[str, Any], list[str]]:
    limit, swap = asked.memory_limit, asked.memory_swap_limit
    if limit < 0 or limit > _HIGHEST_MEMORY:
        raise BadInput(f"{field}.memory_limit_in_bytes: {limit} is negative or over 2^63-1")
    if swap < -1 or swap > _HIGHEST_MEMORY:
        raise BadInput(f"{field}.memory_swap_limit_in_bytes: {swap} is under -1 or over 2^63-1")
    if 0 < swap < limit:
        raise BadInput(
            f"{field}.memory_swap_limit_in_bytes: {swap} is under the memory limit {limit}, included in it"
        )
    if swap > 0 and not limit:
        raise BadInput(f"{field}.memory_swap_limit_in_bytes: needs memory_limit_in_bytes, which it includes")
    made: dict[str, Any] = {}
    if limit:
        made["limit"] = limit
    if not swap:
        return made, []
    if not host.swap_accounting:
        return made, ["memory and swap limit left out: the kernel has no swap accounting"]
    made["swap"] = swap
    return made, []


def _hugepages(asked: Resources, host: HostFacts, field: str) -> tuple[list[dict[str, Any]], list[str]]:
    made, notes = [], []
    for n, huge in enumerate(asked.hugepage_limits):
        if huge.limit < 0:
            raise BadInput(f"{field}.hugepage_limits[{n}].limit: {huge.limit} is negative")
        if huge.page_size not in host.hugepage_sizes:
            known = ", ".join(host.hugepage_sizes) or "none"
            raise BadInput(
                f"{field}.hugepage_limits[{n}].page_size: {huge.page_size[:40]!r} is not a size of this "
                f"machine (it has {known})"
            )
        made.append({"pageSize": huge.page_size, "limit": huge.limit})
    if made and not host.cgroup.has("hugetlb"):
        # kubelet sends a zero limit for every page size; only a real one is worth a word.
        if any(huge["limit"] for huge in made):
            notes.append("hugepage limits left out: no hugetlb controller is mounted")
        return [], notes
    return made, notes


def _swap_for_systemd(memory: Mapping[str, int], host: HostFacts) -> dict[str, str]:
    """The swap limit under version 2's name, by which runtimes tell it to systemd, if that makes cgroups.

    runc 1.1 only writes a limit of no swap into its file, and systemd takes it away with the next change of
    anything in the cgroup.
    """
    if host.cgroup.version != 2 or host.cgroup.driver is not CgroupDriver.SYSTEMD or "swap" not in memory:
        return {}
    swap = memory["swap"]
    return {"memory.swap.max": "max" if swap < 0 else str(swap - memory.get("limit", 0))}


def _unified(asked: Resources, host: HostFacts, field: str) -> dict[str, str]:
    if not asked.unified:
        return {}
    if host.cgroup.version != 2:
        raise Unsupported(f"{field}.unified: this machine's controllers are on cgroup version 1")
    for key, value in asked.unified.items():
        if not _UNIFIED_KEY.match(key):
            raise BadInput(f"{field}.unified: {key[:80]!r} is not the name of a cgroup file")
        if "\0" in value or len(value) > 4096:
            raise BadInput(f"{field}.unified[{key}]: over 4096 characters, or with NUL")
    return dict(asked.unified)


def at_creation(limits: dict[str, Any]) -> dict[str, Any]:
    """The same limits for a group that is to be made, which has no quota anyway.

    crun 1.8.1 writes "no quota" as a number that version 1 refuses ("Numerical result out of range").
    """
    if limits.get("cpu", {}).get("quota", 0) >= 0:
        return limits
    cpu = {key: value for key, value in limits["cpu"].items() if key != "quota"}
    others = {key: value for key, value in limits.items() if key != "cpu"}
    return {**others, **({"cpu": cpu} if cpu else {})}
