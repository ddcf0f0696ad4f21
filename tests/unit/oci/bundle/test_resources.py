"""cgroup limits: zero is unset, nonsense is refused by its member, what the machine lacks is told."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from oci.bundle.resources import at_creation, resources
from oci.errors import BadInput, Unsupported
from oci.facts import CgroupDriver, CgroupFacts
from oci.workload import HugepageLimit, Resources
from tests import bundles

BARE = CgroupFacts(version=1, driver=CgroupDriver.CGROUPFS, mounts={"memory": "/m"})


def test_nothing_asked_limits_nothing() -> None:
    assert resources(Resources(), bundles.host()) == ({}, [])


def test_every_member_has_its_place() -> None:
    asked = Resources(
        cpu_period=100000,
        cpu_quota=20000,
        cpu_shares=512,
        cpuset_cpus="0-1,3",
        cpuset_mems="0",
        memory_limit=64 << 20,
        memory_swap_limit=128 << 20,
        hugepage_limits=(HugepageLimit(page_size="2MB", limit=4 << 20),),
        unified={"memory.high": "max"},
    )
    assert resources(asked, bundles.host(cgroup=bundles.V2), pids_limit=100) == (
        {
            "cpu": {"shares": 512, "period": 100000, "quota": 20000, "cpus": "0-1,3", "mems": "0"},
            "memory": {"limit": 64 << 20, "swap": 128 << 20},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}],
            "unified": {"memory.swap.max": str(64 << 20), "memory.high": "max"},
            "pids": {"limit": 100},
        },
        [],
    )


@pytest.mark.parametrize(
    ("swap", "unified", "told"),
    [
        (64 << 20, {}, {"memory.swap.max": "0"}),
        (-1, {}, {"memory.swap.max": "max"}),
        (64 << 20, {"memory.swap.max": "4096"}, {"memory.swap.max": "4096"}),
        (0, {}, None),
    ],
)
def test_systemd_is_told_of_swap_by_the_name_that_it_keeps(
    swap: int, unified: dict[str, str], told: dict[str, str] | None
) -> None:
    asked = Resources(memory_limit=64 << 20, memory_swap_limit=swap, unified=unified)
    assert resources(asked, bundles.host(cgroup=bundles.V2))[0].get("unified") == told
    alone = replace(bundles.V2, driver=CgroupDriver.CGROUPFS)
    assert resources(asked, bundles.host(cgroup=alone))[0].get("unified", {}) == unified


@pytest.mark.parametrize(("asked", "made"), [(1, 2), (2, 2), (262144, 262144), (10**9, 262144)])
def test_shares_stay_within_the_kernels_range(asked: int, made: int) -> None:
    assert resources(Resources(cpu_shares=asked), bundles.host())[0] == {"cpu": {"shares": made}}


@pytest.mark.parametrize("quota", [-1, -5])
def test_a_negative_quota_is_no_limit(quota: int) -> None:
    assert resources(Resources(cpu_quota=quota), bundles.host())[0] == {"cpu": {"quota": -1}}


@pytest.mark.parametrize(
    ("changed", "member"),
    [
        ({"cpu_shares": -1}, "cpu_shares"),
        ({"cpu_period": 999}, "cpu_period"),
        ({"cpu_period": 1000001}, "cpu_period"),
        ({"cpu_period": -1}, "cpu_period"),
        ({"cpu_quota": 999}, "cpu_quota"),
        ({"cpuset_cpus": "0;rm"}, "cpuset_cpus"),
        ({"cpuset_mems": "0-"}, "cpuset_mems"),
        ({"memory_limit": -1}, "memory_limit_in_bytes"),
        ({"memory_limit": 2**63}, "memory_limit_in_bytes"),
        ({"memory_swap_limit": -2}, "memory_swap_limit_in_bytes"),
        ({"memory_swap_limit": 1}, "memory_swap_limit_in_bytes"),
        ({"memory_limit": 2, "memory_swap_limit": 1}, "memory_swap_limit_in_bytes"),
        ({"hugepage_limits": (HugepageLimit(page_size="3MB", limit=0),)}, "hugepage_limits[0].page_size"),
        ({"hugepage_limits": (HugepageLimit(page_size="2MB", limit=-1),)}, "hugepage_limits[0].limit"),
        ({"unified": {"../x": "1"}}, "unified"),
        ({"unified": {"cgroup/procs": "1"}}, "unified"),
        ({"unified": {"memory.high": "a\0"}}, "unified"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_its_member(changed: dict[str, Any], member: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"config.linux.resources.{member}")):
        resources(Resources(**changed), bundles.host(cgroup=bundles.V2))


def test_files_of_version_2_on_version_1_are_unsupported() -> None:
    with pytest.raises(Unsupported, match="unified: this machine's controllers are on cgroup version 1"):
        resources(Resources(unified={"memory.high": "1"}), bundles.host())


def test_what_the_machine_cannot_limit_is_left_out_and_told() -> None:
    asked = Resources(
        memory_limit=64 << 20,
        memory_swap_limit=64 << 20,
        hugepage_limits=(HugepageLimit(page_size="2MB", limit=2 << 20),),
    )
    assert resources(asked, bundles.host(cgroup=BARE, swap_accounting=False), pids_limit=5) == (
        {"memory": {"limit": 64 << 20}},
        [
            "memory and swap limit left out: the kernel has no swap accounting",
            "hugepage limits left out: no hugetlb controller is mounted",
            "pids limit left out: no pids controller is mounted",
        ],
    )


def test_zero_hugepage_limits_that_cannot_be_set_are_not_worth_a_word() -> None:
    asked = Resources(hugepage_limits=(HugepageLimit(page_size="1GB", limit=0),))
    assert resources(asked, bundles.host(cgroup=BARE)) == ({}, [])


def test_unlimited_swap_needs_no_memory_limit() -> None:
    assert resources(Resources(memory_swap_limit=-1), bundles.host()) == ({"memory": {"swap": -1}}, [])


def test_a_group_that_is_made_is_not_told_that_it_has_no_quota() -> None:
    assert at_creation({"cpu": {"quota": -1}, "memory": {"limit": 1}}) == {"memory": {"limit": 1}}
    assert at_creation({"cpu": {"quota": -1, "shares": 2}}) == {"cpu": {"shares": 2}}
    assert at_creation({"cpu": {"quota": 5000}}) == {"cpu": {"quota": 5000}}
