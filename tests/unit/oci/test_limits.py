from __future__ import annotations

import pytest

from oci.limits import difference, merged
from oci.workload import HugepageLimit, Resources

M = 1 << 20
NOW = Resources(
    cpu_period=100_000, cpu_quota=20_000, cpu_shares=512, memory_limit=64 * M, memory_swap_limit=64 * M,
    oom_score_adj=5, cpuset_cpus="0", hugepage_limits=(HugepageLimit(page_size="2MB", limit=0),),
    unified={"memory.high": "1"},
)  # fmt: skip


def test_only_set_members_change_and_collections_merge() -> None:
    change = Resources(
        cpu_quota=50_000,
        oom_score_adj=-7,
        hugepage_limits=(HugepageLimit(page_size="1GB", limit=1),),
        unified={"pids.max": "9"},
    )
    assert merged(NOW, change, swap_accounting=True) == Resources(
        cpu_period=100_000, cpu_quota=50_000, cpu_shares=512, memory_limit=64 * M, memory_swap_limit=64 * M,
        oom_score_adj=5, cpuset_cpus="0",
        hugepage_limits=(HugepageLimit(page_size="2MB", limit=0), HugepageLimit(page_size="1GB", limit=1)),
        unified={"memory.high": "1", "pids.max": "9"},
    )  # fmt: skip
    assert merged(NOW, Resources(), swap_accounting=True) == NOW


@pytest.mark.parametrize(
    ("memory", "swap", "change", "accounting", "expected"),
    [
        (64, 64, Resources(memory_limit=128), True, 128),  # no swap before, none after
        (64, 96, Resources(memory_limit=128), True, 160),  # as much swap as before
        (64, 0, Resources(memory_limit=128), True, 128),
        (64, -1, Resources(memory_limit=128), True, -1),
        (64, 64, Resources(memory_limit=128, memory_swap_limit=200), True, 200),
        (64, 64, Resources(cpu_shares=5), True, 64),
        (64, 0, Resources(memory_limit=128), False, 0),
    ],
)
def test_the_swap_limit_follows_the_memory_so_that_no_swap_is_gained(
    memory: int, swap: int, change: Resources, accounting: bool, expected: int
) -> None:
    now = Resources(memory_limit=memory, memory_swap_limit=swap)
    assert merged(now, change, swap_accounting=accounting).memory_swap_limit == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Resources(cpu_shares=512), Resources()),
        (Resources(cpu_shares=7), Resources(cpu_shares=7)),
        (Resources(cpu_quota=30_000), Resources(cpu_period=100_000, cpu_quota=30_000)),
        (Resources(memory_limit=65 * M), Resources(memory_limit=65 * M, memory_swap_limit=65 * M)),
        (Resources(unified={"memory.high": "2"}), Resources(unified={"memory.high": "2"})),
        (Resources(cpuset_cpus="0-1"), Resources(cpuset_cpus="0-1")),
    ],
)
def test_only_what_differs_is_written_but_pairs_go_together(change: Resources, expected: Resources) -> None:
    assert difference(NOW, merged(NOW, change, swap_accounting=True)) == expected


def test_the_swap_limit_that_follows_stays_a_number_that_runtimes_take() -> None:
    now = Resources(memory_limit=M, memory_swap_limit=3 * M)
    change = Resources(memory_limit=2**63 - 1)
    assert merged(now, change, swap_accounting=True).memory_swap_limit == 2**63 - 1
