"""The metrics that Crisp tells of containers and pods: names, meanings, and samples from what was read. Pure.

Names and meanings are cAdvisor's, which dashboards know; the list of them is critest's (cri-tools, metrics
specs). A family is described only where the machine has what it is made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from oci.cgroup import CpuUsage, DeviceIo, MemoryUsage, PressureStall
from oci.netdev import InterfaceCounters

_SECOND = 1_000_000_000


class Kind(Enum):
    """As Prometheus means them."""

    COUNTER = "counter"
    GAUGE = "gauge"


class Needs(Enum):
    """What of the machine a family is made of."""

    NOTHING = "nothing"
    CPU = "cpu"
    MEMORY = "memory"
    SWAP = "swap accounting"
    PEAK = "memory.peak"
    PIDS = "pids"
    IO = "io"
    HUGEPAGES = "hugetlb"
    PRESSURE = "pressure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric. `labels` come after the ones that every sample has."""

    name: str
    help: str
    kind: Kind
    needs: Needs = Needs.NOTHING
    labels: tuple[str, ...] = ()
    of_pod: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a family, with the values of the family's own labels. Seconds are whole."""

    name: str
    value: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSpec:
    """The kernel's settings: µs, and version 1's shares. `quota` None is no limit."""

    period: int
    shares: int
    quota: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Page faults of the group itself and with what is below it."""

    own: int
    own_major: int
    all: int
    all_major: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The writable layer and the file system that holds it."""

    device: str
    used: int | None  # bytes; None when it was too large to count
    size: int  # bytes
    inodes: int
    inodes_free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    count: int
    threads: int
    threads_limit: int | None
    descriptors: int
    sockets: int
    open_files_limit: int | None = None  # soft, of the first process; None is unlimited or not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that was read of one container; None for what could not be."""

    time: int  # nanoseconds since the epoch
    started_at: int
    cpu: CpuUsage | None = None
    cpu_spec: CpuSpec | None = None
    memory: MemoryUsage | None = None
    memory_reservation: int | None = None
    faults: Faults | None = None
    oom_kills: int | None = None
    swap: int | None = None
    swap_limit: int | None = None  # of memory and swap together; 0 is unlimited
    processes: Processes | None = None
    io: tuple[tuple[str, DeviceIo], ...] = ()  # with the device's name
    hugepages: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # size -> usage, highest
    pressure: Mapping[str, PressureStall] = field(default_factory=dict)  # "cpu", "io", "memory"
    layer: Layer | None = None


def _of_memory(name: str, text: str, kind: Kind = Kind.GAUGE, needs: Needs = Needs.MEMORY) -> Family:
    return Family(name=f"container_memory_{name}", help=text, kind=kind, needs=needs)


def _of_cpu(name: str, text: str, kind: Kind = Kind.COUNTER) -> Family:
    return Family(name=f"container_cpu_{name}", help=text, kind=kind, needs=Needs.CPU)


def _network() -> Iterator[Family]:
    for word, way in (("receive", "received"), ("transmit", "sent")):
        for name, text in (
            ("bytes", f"Bytes {way}."),
            ("packets", f"Packets {way}."),
            ("packets_dropped", f"Packets dropped, not {way}."),
            ("errors", f"Errors, packets not {way}."),
        ):
            yield Family(
                name=f"container_network_{word}_{name}_total",
                help=text,
                kind=Kind.COUNTER,
                labels=("interface",),
                of_pod=True,
            )


def _pressure() -> Iterator[Family]:
    for resource in ("cpu", "io", "memory"):
        for name, text in (("stalled", "all tasks were"), ("waiting", "at least one task was")):
            yield Family(
                name=f"container_pressure_{resource}_{name}_seconds_total",
                help=f"Seconds in which {text} held up for want of {resource}.",
                kind=Kind.COUNTER,
                needs=Needs.PRESSURE,
            )


def _gauge(name: str, text: str, needs: Needs = Needs.NOTHING, labels: tuple[str, ...] = ()) -> Family:
    return Family(name=f"container_{name}", help=text, kind=Kind.GAUGE, needs=needs, labels=labels)


def _io(name: str, text: str) -> Family:
    return Family(
        name=f"container_fs_{name}_total", help=text, kind=Kind.COUNTER, needs=Needs.IO, labels=("device",)
    )


FAMILIES: tuple[Family, ...] = (
    _of_cpu("usage_seconds_total", "Processor time used."),
    _of_cpu("user_seconds_total", "Processor time used in user mode."),
    _of_cpu("system_seconds_total", "Processor time used in the kernel."),
    _of_cpu("cfs_periods_total", "Enforcement periods of the processor quota that passed."),
    _of_cpu("cfs_throttled_periods_total", "Enforcement periods in which the container was throttled."),
    _of_cpu("cfs_throttled_seconds_total", "Time for which the container was throttled."),
    _of_memory("usage_bytes", "Memory in use, the file cache included."),
    _of_memory("working_set_bytes", "Memory in use without the inactive file cache."),
    _of_memory("rss", "Anonymous memory in bytes."),
    _of_memory("cache", "File cache in bytes."),
    _of_memory("swap", "Swap in use in bytes.", needs=Needs.SWAP),
    _of_memory("mapped_file", "Mapped files in memory in bytes."),
    _of_memory("kernel_usage", "Kernel memory in bytes."),
    _of_memory("max_usage_bytes", "Most memory that was ever in use.", needs=Needs.PEAK),
    _of_memory("failcnt", "How often the memory limit was hit; 0 on cgroup version 2.", Kind.COUNTER),
    Family(
        name="container_memory_failures_total",
        help="Page faults.",
        kind=Kind.COUNTER,
        needs=Needs.MEMORY,
        labels=("failure_type", "scope"),
    ),
    Family(
        name="container_oom_events_total",
        help="Processes killed for want of memory.",
        kind=Kind.COUNTER,
        needs=Needs.MEMORY,
    ),
    *_network(),
    _gauge("fs_inodes_free", "Free inodes of the writable layer's file system.", labels=("device",)),
    _gauge("fs_inodes_total", "Inodes of the writable layer's file system.", labels=("device",)),
    _gauge("fs_limit_bytes", "Size of the writable layer's file system.", labels=("device",)),
    _gauge("fs_usage_bytes", "What the writable layer takes on disk.", labels=("device",)),
    _io("reads", "Read operations."),
    _io("reads_bytes", "Bytes read."),
    _io("writes", "Write operations."),
    _io("writes_bytes", "Bytes written."),
    Family(
        name="container_blkio_device_usage_total",
        help="Bytes that went to and from a block device.",
        kind=Kind.COUNTER,
        needs=Needs.IO,
        labels=("device", "major", "minor", "operation"),
    ),
    _gauge("hugetlb_usage_bytes", "Hugepages in use.", Needs.HUGEPAGES, ("pagesize",)),
    _gauge("hugetlb_max_usage_bytes", "Most hugepages that were in use.", Needs.HUGEPAGES, ("pagesize",)),
    *_pressure(),
    _gauge("processes", "Processes.", Needs.PIDS),
    _gauge("threads", "Threads.", Needs.PIDS),
    _gauge("threads_max", "Most threads allowed; 0 is unlimited.", Needs.PIDS),
    _gauge("file_descriptors", "Open file descriptors.", Needs.PIDS),
    _gauge("sockets", "Open sockets.", Needs.PIDS),
    _gauge("ulimits_soft", "Soft resource limits of the first process.", Needs.PIDS, ("ulimit",)),
    _gauge("last_seen", "When the container was last seen, in Unix seconds."),
    _gauge("start_time_seconds", "When the container was started, in Unix seconds."),
    _gauge("spec_cpu_period", "Enforcement period of the processor quota in microseconds.", Needs.CPU),
    _gauge("spec_cpu_quota", "Processor time allowed in a period, in microseconds.", Needs.CPU),
    _gauge("spec_cpu_shares", "Share of the processor relative to others.", Needs.CPU),
    _gauge("spec_memory_limit_bytes", "Memory limit; 0 is unlimited.", Needs.MEMORY),
    _gauge("spec_memory_reservation_limit_bytes", "Memory that is kept; 0 is none.", Needs.MEMORY),
    _gauge("spec_memory_swap_limit_bytes", "Limit of memory and swap; 0 is unlimited.", Needs.SWAP),
)


def described(available: frozenset[Needs]) -> tuple[Family, ...]:
    """The families of a machine that has `available`."""
    return tuple(one for one in FAMILIES if one.needs is Needs.NOTHING or one.needs in available)


def network_samples(interfaces: tuple[InterfaceCounters, ...]) -> Iterator[Sample]:
    """Of a pod's own network."""
    for one in interfaces:
        label = (one.name,)
        for way, numbers in (
            ("receive", (one.rx_bytes, one.rx_packets, one.rx_dropped, one.rx_errors)),
            ("transmit", (one.tx_bytes, one.tx_packets, one.tx_dropped, one.tx_errors)),
        ):
            names = ("bytes", "packets", "packets_dropped", "errors")
            for name, value in zip(names, numbers, strict=True):
                yield Sample(f"container_network_{way}_{name}_total", value, label)


def container_samples(read: Reading) -> Iterator[Sample]:
    """Of one running container."""
    yield Sample("container_last_seen", read.time // _SECOND)
    yield Sample("container_start_time_seconds", read.started_at // _SECOND)
    yield from _cpu_samples(read)
    yield from _memory_samples(read)
    yield from _io_samples(read)
    if (processes := read.processes) is not None:
        yield Sample("container_processes", processes.count)
        yield Sample("container_threads", processes.threads)
        yield Sample("container_threads_max", processes.threads_limit or 0)
        yield Sample("container_file_descriptors", processes.descriptors)
        yield Sample("container_sockets", processes.sockets)
        if processes.open_files_limit is not None:
            yield Sample("container_ulimits_soft", processes.open_files_limit, ("max_open_files",))
    for size, (usage, highest) in read.hugepages.items():
        yield Sample("container_hugetlb_usage_bytes", usage, (size,))
        yield Sample("container_hugetlb_max_usage_bytes", highest, (size,))
    for resource, stall in read.pressure.items():
        for name, line in (("stalled", stall.full), ("waiting", stall.some)):
            yield Sample(f"container_pressure_{resource}_{name}_seconds_total", line.total // _SECOND)


def _cpu_samples(read: Reading) -> Iterator[Sample]:
    if (cpu := read.cpu) is not None:
        yield Sample("container_cpu_usage_seconds_total", cpu.total // _SECOND)
        yield Sample("container_cpu_user_seconds_total", cpu.user // _SECOND)
        yield Sample("container_cpu_system_seconds_total", cpu.system // _SECOND)
        yield Sample("container_cpu_cfs_periods_total", cpu.periods)
        yield Sample("container_cpu_cfs_throttled_periods_total", cpu.throttled_periods)
        yield Sample("container_cpu_cfs_throttled_seconds_total", cpu.throttled // _SECOND)
    if (spec := read.cpu_spec) is not None:
        yield Sample("container_spec_cpu_period", spec.period)
        yield Sample("container_spec_cpu_shares", spec.shares)
        if spec.quota is not None:
            yield Sample("container_spec_cpu_quota", spec.quota)


def _memory_samples(read: Reading) -> Iterator[Sample]:
    if (memory := read.memory) is not None:
        yield Sample("container_memory_usage_bytes", memory.usage)
        yield Sample("container_memory_working_set_bytes", memory.working_set)
        yield Sample("container_memory_rss", memory.rss)
        yield Sample("container_memory_cache", memory.cache)
        yield Sample("container_memory_mapped_file", memory.mapped_file)
        yield Sample("container_memory_kernel_usage", memory.kernel)
        yield Sample("container_memory_failcnt", memory.failures)
        yield Sample("container_spec_memory_limit_bytes", memory.limit or 0)
        if memory.peak is not None:
            yield Sample("container_memory_max_usage_bytes", memory.peak)
    if (faults := read.faults) is not None:
        name = "container_memory_failures_total"
        yield Sample(name, faults.own, ("pgfault", "container"))
        yield Sample(name, faults.own_major, ("pgmajfault", "container"))
        yield Sample(name, faults.all, ("pgfault", "hierarchy"))
        yield Sample(name, faults.all_major, ("pgmajfault", "hierarchy"))
    for name, value in (
        ("container_oom_events_total", read.oom_kills),
        ("container_memory_swap", read.swap),
        ("container_spec_memory_swap_limit_bytes", read.swap_limit),
        ("container_spec_memory_reservation_limit_bytes", read.memory_reservation),
    ):
        if value is not None:
            yield Sample(name, value)


def _io_samples(read: Reading) -> Iterator[Sample]:
    for device, io in read.io:
        for name, key in (
            ("reads", "rios"),
            ("reads_bytes", "rbytes"),
            ("writes", "wios"),
            ("writes_bytes", "wbytes"),
        ):
            if key in io.values:
                yield Sample(f"container_fs_{name}_total", io.values[key], (device,))
        for operation, key in (("Read", "rbytes"), ("Write", "wbytes")):
            if key in io.values:
                yield Sample(
                    "container_blkio_device_usage_total",
                    io.values[key],
                    (device, str(io.major), str(io.minor), operation),
                )
    if (layer := read.layer) is not None:
        label = (layer.device,)
        yield Sample("container_fs_inodes_free", layer.inodes_free, label)
        yield Sample("container_fs_inodes_total", layer.inodes, label)
        yield Sample("container_fs_limit_bytes", layer.size, label)
        if layer.used is not None:
            yield Sample("container_fs_usage_bytes", layer.used, label)
