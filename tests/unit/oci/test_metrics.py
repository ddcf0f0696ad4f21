"""Names, kinds and labels agree between what is described and what is told."""

from __future__ import annotations

from collections import Counter

import pytest

from oci.cgroup import CpuUsage, DeviceIo, MemoryUsage, Pressure, PressureStall
from oci.metrics import (
    FAMILIES,
    CpuSpec,
    Faults,
    Layer,
    Needs,
    Processes,
    Reading,
    Sample,
    container_samples,
    described,
    network_samples,
)
from oci.netdev import InterfaceCounters

S = 1_000_000_000
FULL = Reading(
    time=90 * S + 5,
    started_at=80 * S + 999,
    cpu=CpuUsage(total=7 * S, user=4 * S, system=3 * S, periods=9, throttled_periods=2, throttled=S + 1),
    cpu_spec=CpuSpec(period=100_000, shares=1024, quota=20_000),
    memory=MemoryUsage(
        usage=100,
        working_set=70,
        rss=30,
        cache=20,
        mapped_file=10,
        kernel=5,
        limit=None,
        peak=120,
        failures=3,
    ),
    memory_reservation=0,
    faults=Faults(own=1, own_major=2, all=3, all_major=4),
    oom_kills=1,
    swap=6,
    swap_limit=0,
    processes=Processes(
        count=2, threads=3, threads_limit=None, descriptors=8, sockets=1, open_files_limit=1024
    ),
    io=(("/dev/vda", DeviceIo(major=8, minor=0, values={"rbytes": 1, "wbytes": 2, "rios": 3, "wios": 4})),),
    hugepages={"2MB": (5, 6)},
    pressure={
        name: PressureStall(some=Pressure(total=2 * S), full=Pressure(total=S))
        for name in ("cpu", "io", "memory")
    },
    layer=Layer(device="/dev/vda", used=11, size=12, inodes=13, inodes_free=14),
)
ETH0 = InterfaceCounters(
    name="eth0", rx_bytes=1, rx_packets=2, rx_errors=3, rx_dropped=4,
    tx_bytes=5, tx_packets=6, tx_errors=7, tx_dropped=8,
)  # fmt: skip


def test_every_family_is_told_with_its_labels_and_nothing_else_is() -> None:
    samples = [*container_samples(FULL), *network_samples((ETH0,))]
    labels = {family.name: len(family.labels) for family in FAMILIES}
    assert {sample.name: len(sample.labels) for sample in samples} == labels
    assert [key for key, n in Counter((s.name, s.labels) for s in samples).items() if n > 1] == []
    assert len(FAMILIES) == len(labels) == 56
    assert all(family.help.endswith(".") for family in FAMILIES)


@pytest.mark.parametrize(
    "sample",
    [
        Sample("container_cpu_usage_seconds_total", 7),
        Sample("container_cpu_cfs_throttled_seconds_total", 1),
        Sample("container_last_seen", 90),
        Sample("container_start_time_seconds", 80),
        Sample("container_spec_memory_limit_bytes", 0),
        Sample("container_threads_max", 0),
        Sample("container_memory_failures_total", 4, ("pgmajfault", "hierarchy")),
        Sample("container_blkio_device_usage_total", 2, ("/dev/vda", "8", "0", "Write")),
        Sample("container_pressure_io_stalled_seconds_total", 1),
        Sample("container_pressure_io_waiting_seconds_total", 2),
        Sample("container_ulimits_soft", 1024, ("max_open_files",)),
        Sample("container_hugetlb_max_usage_bytes", 6, ("2MB",)),
    ],
)
def test_a_sample_has_its_value(sample: Sample) -> None:
    assert sample in list(container_samples(FULL))


def test_network_samples_are_not_mixed_up() -> None:
    told = {
        sample.name.removeprefix("container_network_"): sample.value for sample in network_samples((ETH0,))
    }
    assert told == {
        "receive_bytes_total": 1, "receive_packets_total": 2, "receive_errors_total": 3,
        "receive_packets_dropped_total": 4, "transmit_bytes_total": 5, "transmit_packets_total": 6,
        "transmit_errors_total": 7, "transmit_packets_dropped_total": 8,
    }  # fmt: skip


def test_what_could_not_be_read_is_not_told() -> None:
    bare = Reading(time=S, started_at=S)
    assert list(container_samples(bare)) == [
        Sample("container_last_seen", 1),
        Sample("container_start_time_seconds", 1),
    ]


def test_only_what_the_machine_has_is_described() -> None:
    assert described(frozenset(Needs)) == FAMILIES
    few = {family.name for family in described(frozenset({Needs.SWAP}))}
    assert {"container_memory_swap", "container_last_seen", "container_fs_usage_bytes"} <= few
    assert not {"container_memory_rss", "container_pressure_io_waiting_seconds_total"} & few
