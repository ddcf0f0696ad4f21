"""Rates, sums and the interface that leads, without a machine."""

from __future__ import annotations

from typing import Any

import pytest

from oci.netdev import InterfaceCounters
from oci.workload import ContainerId, PodId
from shim.collector import network_use, summed, with_rate
from shim.stats import ContainerUsage, CpuUse, MemoryUse, NetworkUse, ProcessUse


def cpu(timestamp: int, total: int | None) -> CpuUse:
    return CpuUse(timestamp=timestamp, usage_core_nano_seconds=total)


@pytest.mark.parametrize(
    ("before", "now", "rate"),
    [
        (None, cpu(10, 5), None),
        (cpu(0, 0), cpu(2_000_000_000, 1_000_000_000), 500_000_000),
        (cpu(0, 7), cpu(1_000_000_000, 7), 0),
        (cpu(0, 9), cpu(1, 8), None),  # another cgroup of that name
        (cpu(5, 1), cpu(5, 2), None),
        (cpu(0, None), cpu(1, 2), None),
    ],
)
def test_a_rate_needs_two_samples_that_go_forward(
    before: CpuUse | None, now: CpuUse, rate: int | None
) -> None:
    rated = with_rate(now, before)
    assert rated is not None
    assert (rated.usage_nano_cores, rated.usage_core_nano_seconds) == (rate, now.usage_core_nano_seconds)
    assert with_rate(None, before) is None


def interface(name: str) -> InterfaceCounters:
    zeros: dict[str, Any] = dict.fromkeys(
        (
            "rx_bytes",
            "rx_packets",
            "rx_errors",
            "rx_dropped",
            "tx_bytes",
            "tx_packets",
            "tx_errors",
            "tx_dropped",
        ),
        0,
    )
    return InterfaceCounters(name=name, **zeros)


def test_the_first_network_s_interface_leads_and_is_not_repeated() -> None:
    net1, eth0 = interface("net1"), interface("eth0")
    assert network_use((net1, eth0), 5) == NetworkUse(timestamp=5, default=eth0, others=(net1,))
    assert network_use((net1, eth0), 5).interfaces == (eth0, net1)
    assert network_use((net1,), 5) == NetworkUse(timestamp=5, others=(net1,))


def test_a_pod_without_a_cgroup_of_its_own_is_the_sum_of_what_runs() -> None:
    def member(n: int) -> ContainerUsage:
        return ContainerUsage(
            id=ContainerId(str(n)),
            cpu=cpu(n, n),
            memory=MemoryUse(timestamp=n, working_set=n, usage=10 * n, rss=n, page_faults=n),
        )

    used = summed(
        PodId("p"),
        [
            (member(1), ProcessUse(timestamp=1, count=2)),
            (member(2), None),
            (ContainerUsage(id=ContainerId("gone")), None),
        ],
    )
    assert used.cpu == cpu(2, 3)
    assert used.memory == MemoryUse(
        timestamp=2, working_set=3, usage=30, rss=3, page_faults=3, major_page_faults=0
    )
    assert used.process is not None
    assert used.process.count == 2
