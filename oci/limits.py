"""What limits a container has after a change to some of them (CRI UpdateContainerResources). Pure."""

from __future__ import annotations

from dataclasses import replace

from oci.workload import HugepageLimit, Resources

_MOST = 2**63 - 1  # of any limit: the runtime specification has signed 64 bits


def merged(now: Resources, change: Resources, *, swap_accounting: bool) -> Resources:
    """`now` with the set members of `change`: 0, "" and empty collections keep what is.

    `unified` merges by key, hugepage limits by page size. The OOM score stays: it belongs to the process.
    When only the memory limit is given, the memory+swap limit moves along, so that no swap is gained.
    """
    pages = {limit.page_size: limit for limit in (*now.hugepage_limits, *change.hugepage_limits)}
    return replace(
        now,
        cpu_period=change.cpu_period or now.cpu_period,
        cpu_quota=change.cpu_quota or now.cpu_quota,
        cpu_shares=change.cpu_shares or now.cpu_shares,
        memory_limit=change.memory_limit or now.memory_limit,
        memory_swap_limit=_swap(now, change, accounting=swap_accounting),
        cpuset_cpus=change.cpuset_cpus or now.cpuset_cpus,
        cpuset_mems=change.cpuset_mems or now.cpuset_mems,
        hugepage_limits=tuple(
            HugepageLimit(page_size=size, limit=limit.limit) for size, limit in pages.items()
        ),
        unified={**now.unified, **change.unified},
    )


def _swap(now: Resources, change: Resources, *, accounting: bool) -> int:
    if change.memory_swap_limit:
        return change.memory_swap_limit
    if not change.memory_limit or not accounting or now.memory_swap_limit < 0:
        return now.memory_swap_limit
    allowed = now.memory_swap_limit - now.memory_limit if now.memory_swap_limit and now.memory_limit else 0
    return min(change.memory_limit + max(allowed, 0), _MOST)


def difference(now: Resources, wanted: Resources) -> Resources:
    """The members of `wanted` that differ from `now`; memory and memory+swap always together."""
    memory = (now.memory_limit, now.memory_swap_limit) != (wanted.memory_limit, wanted.memory_swap_limit)
    quota = (now.cpu_period, now.cpu_quota) != (wanted.cpu_period, wanted.cpu_quota)
    return Resources(
        cpu_period=wanted.cpu_period if quota else 0,
        cpu_quota=wanted.cpu_quota if quota else 0,
        cpu_shares=wanted.cpu_shares if wanted.cpu_shares != now.cpu_shares else 0,
        memory_limit=wanted.memory_limit if memory else 0,
        memory_swap_limit=wanted.memory_swap_limit if memory else 0,
        cpuset_cpus=wanted.cpuset_cpus if wanted.cpuset_cpus != now.cpuset_cpus else "",
        cpuset_mems=wanted.cpuset_mems if wanted.cpuset_mems != now.cpuset_mems else "",
        hugepage_limits=tuple(one for one in wanted.hugepage_limits if one not in now.hugepage_limits),
        unified={key: value for key, value in wanted.unified.items() if now.unified.get(key) != value},
    )
