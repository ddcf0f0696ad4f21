"""LinuxContainerResources in both directions."""

from __future__ import annotations

import re

from api.proto import cri_pb2
from api.translate import checks
from oci.errors import BadInput
from oci.workload import HugepageLimit, Resources

# kernel/sched: a period of 1 ms to 1 s and a quota of 1 ms at least; -1 is no quota.
_PERIOD = range(1_000, 1_000_001)
_MIN_QUOTA = 1_000
# kernel/sched/sched.h MAX_BW
_MAX_QUOTA = (1 << 44) - 1
# kernel/sched/sched.h MAX_SHARES
_MAX_SHARES = 1 << 18
_CPU_LIST = re.compile(r"[0-9,\- ]*\Z")
_PAGE_SIZE = re.compile(r"[1-9][0-9]*[KMGT]?B\Z")
_UNIFIED_KEY = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+\Z")


def from_wire(message: cri_pb2.LinuxContainerResources, path: str) -> Resources:
    """Raises BadInput for what no kernel takes; what only this host lacks is found out later."""
    if message.cpu_period and message.cpu_period not in _PERIOD:
        raise BadInput(f"{path}.cpu_period: {message.cpu_period} us is not within 1000 to 1000000")
    if message.cpu_quota not in (0, -1) and message.cpu_quota < _MIN_QUOTA:
        raise BadInput(f"{path}.cpu_quota: {message.cpu_quota} us is neither -1 nor at least {_MIN_QUOTA}")
    if message.cpu_quota > _MAX_QUOTA:
        raise BadInput(f"{path}.cpu_quota: {message.cpu_quota} us is more than the kernel's {_MAX_QUOTA}")
    if checks.not_negative(message.cpu_shares, f"{path}.cpu_shares") > _MAX_SHARES:
        raise BadInput(f"{path}.cpu_shares: {message.cpu_shares} is more than {_MAX_SHARES}")
    memory = checks.not_negative(message.memory_limit_in_bytes, f"{path}.memory_limit_in_bytes")
    swap = message.memory_swap_limit_in_bytes
    if swap < -1:
        raise BadInput(f"{path}.memory_swap_limit_in_bytes: {swap} is negative and not -1")
    if 0 < swap < memory:
        raise BadInput(
            f"{path}.memory_swap_limit_in_bytes: {swap} is less than memory_limit_in_bytes ({memory}), "
            "which it includes"
        )
    if not -1000 <= message.oom_score_adj <= 1000:
        raise BadInput(f"{path}.oom_score_adj: {message.oom_score_adj} is not within -1000 to 1000")
    return Resources(
        cpu_period=message.cpu_period,
        cpu_quota=message.cpu_quota,
        cpu_shares=message.cpu_shares,
        memory_limit=memory,
        memory_swap_limit=swap,
        oom_score_adj=message.oom_score_adj,
        cpuset_cpus=_cpu_list(message.cpuset_cpus, f"{path}.cpuset_cpus"),
        cpuset_mems=_cpu_list(message.cpuset_mems, f"{path}.cpuset_mems"),
        hugepage_limits=tuple(
            _hugepages(limit, f"{path}.hugepage_limits[{index}]")
            for index, limit in enumerate(message.hugepage_limits)
        ),
        unified=_unified(dict(message.unified), f"{path}.unified"),
    )


def to_wire(resources: Resources) -> cri_pb2.LinuxContainerResources:
    return cri_pb2.LinuxContainerResources(
        cpu_period=resources.cpu_period,
        cpu_quota=resources.cpu_quota,
        cpu_shares=resources.cpu_shares,
        memory_limit_in_bytes=resources.memory_limit,
        memory_swap_limit_in_bytes=resources.memory_swap_limit,
        oom_score_adj=resources.oom_score_adj,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        hugepage_limits=[
            cri_pb2.HugepageLimit(page_size=limit.page_size, limit=limit.limit)
            for limit in resources.hugepage_limits
        ],
        unified=resources.unified,
    )


def _cpu_list(value: str, path: str) -> str:
    if not _CPU_LIST.match(value):
        raise BadInput(f"{path}: {value[:80]!r} is not a list such as 0-2,7")
    return value


def _hugepages(limit: cri_pb2.HugepageLimit, path: str) -> HugepageLimit:
    if not _PAGE_SIZE.match(limit.page_size):
        raise BadInput(f"{path}.page_size: {limit.page_size[:80]!r} is not a size such as 2MB")
    return HugepageLimit(page_size=limit.page_size, limit=limit.limit)


def _unified(values: dict[str, str], path: str) -> dict[str, str]:
    for key, value in values.items():
        # The key is a file name in the container's cgroup directory: nothing else may be reached by it.
        if not _UNIFIED_KEY.match(key):
            raise BadInput(f"{path}: {key[:80]!r} is not the name of a cgroup file")
        checks.text(value, f"{path}[{key!r}]", limit=4096)
    return values
