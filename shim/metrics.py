"""Reading what metrics are made of: the cgroup's files, its processes, the writable layer's file system.

Blocking, microseconds a file. What is missing is None, never an error; what the texts mean is `oci/`'s.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from oci import cgroup
from oci.facts import HostFacts
from oci.metrics import CpuSpec, Faults, Layer, Needs, Processes, Reading
from shim.facts.reading import text
from shim.records import ContainerRecord
from shim.stats import FilesystemUse, Group, groups_below

_FULL_WEIGHT = 9999  # of version 2's weights, 1 to 10000
_ALL_SHARES = 262142  # of version 1's shares, 2 to 262144


def available(host: HostFacts) -> frozenset[Needs]:
    """What of this machine metrics can be made of; the same for the life of the daemon."""
    found = set()
    if host.cgroup.version == 2:
        controllers = {"memory": Needs.MEMORY, "pids": Needs.PIDS, "io": Needs.IO, "cpu": Needs.CPU}
        peak = host.kernel >= (5, 19, 0)
        if Path("/proc/pressure/cpu").exists():
            found.add(Needs.PRESSURE)
    else:
        controllers = {"memory": Needs.MEMORY, "pids": Needs.PIDS, "blkio": Needs.IO, "cpuacct": Needs.CPU}
        peak = True
    found |= {needs for name, needs in controllers.items() if host.cgroup.has(name)}
    if Needs.MEMORY in found and peak:
        found.add(Needs.PEAK)
    if Needs.MEMORY in found and host.swap_accounting:
        found.add(Needs.SWAP)
    if host.cgroup.has("hugetlb") and host.hugepage_sizes:
        found.add(Needs.HUGEPAGES)
    return frozenset(found)


def read(record: ContainerRecord, host: HostFacts, layer: FilesystemUse | None) -> Reading:
    """Everything of one running container; `layer` was measured before."""
    reader = _read_v2 if host.cgroup.version == 2 else _read_v1
    return reader(record, host, _layer(layer))


def _read_v1(record: ContainerRecord, host: HostFacts, layer: Layer | None) -> Reading:
    path = record.cgroup
    accounting, cpu = Group(path, "cpuacct", host), Group(path, "cpu", host)
    memory, blkio = Group(path, "memory", host), Group(path, "blkio", host)
    stat = memory("memory.stat")
    numbers = cgroup.flat_keyed(stat)
    used = cgroup.memory_v1(
        memory("memory.usage_in_bytes"),
        stat=stat,
        maximum=memory("memory.limit_in_bytes"),
        peak=memory("memory.max_usage_in_bytes"),
        kernel=memory("memory.kmem.usage_in_bytes"),
        failcnt=memory("memory.failcnt"),
    )
    both, limit = memory("memory.memsw.usage_in_bytes"), memory("memory.memsw.limit_in_bytes")
    swap = cgroup.swap_v1(used, memsw_usage=both) if used is not None else None
    period, shares = cgroup.integer(cpu("cpu.cfs_period_us")), cgroup.integer(cpu("cpu.shares"))
    return Reading(
        time=time.time_ns(),
        started_at=record.started_at,
        cpu=cgroup.cpu_v1(
            accounting("cpuacct.usage"),
            user=accounting("cpuacct.usage_user"),
            system=accounting("cpuacct.usage_sys"),
            stat=cpu("cpu.stat"),
        ),
        cpu_spec=None
        if period is None or shares is None
        else CpuSpec(period=period, shares=shares, quota=cgroup.integer(cpu("cpu.cfs_quota_us"))),
        memory=used,
        memory_reservation=None if used is None else cgroup.limit(memory("memory.soft_limit_in_bytes")) or 0,
        faults=None if used is None else _faults(numbers, total="total_"),
        oom_kills=None if used is None else cgroup.oom_kills(memory("memory.oom_control")),
        swap=None if swap is None else swap.usage,
        swap_limit=cgroup.limit(limit) or 0 if limit else None,
        processes=_processes(record, host),
        io=_named(
            cgroup.io_v1(blkio("blkio.throttle.io_service_bytes"), blkio("blkio.throttle.io_serviced"))
        ),
        hugepages=_hugepages(record, host, usage="usage_in_bytes", highest="max_usage_in_bytes"),
        layer=layer,
    )


def _read_v2(record: ContainerRecord, host: HostFacts, layer: Layer | None) -> Reading:
    group = Group(record.cgroup, "memory", host)
    stat = group("memory.stat")
    used = cgroup.memory_v2(
        group("memory.current"), stat=stat, maximum=group("memory.max"), peak=group("memory.peak")
    )
    swap = cgroup.integer(group("memory.swap.current"))
    swap_limit = None
    if swap is not None and used is not None:
        ceiling = cgroup.limit(group("memory.swap.max"))
        swap_limit = 0 if ceiling is None or used.limit is None else used.limit + ceiling
    stalls = {name: cgroup.pressure(group(f"{name}.pressure")) for name in ("cpu", "io", "memory")}
    return Reading(
        time=time.time_ns(),
        started_at=record.started_at,
        cpu=cgroup.cpu_v2(group("cpu.stat")),
        cpu_spec=_spec_v2(group),
        memory=used,
        memory_reservation=None if used is None else cgroup.limit(group("memory.low")) or 0,
        faults=None if used is None else _faults(cgroup.flat_keyed(stat), total=""),
        oom_kills=None if used is None else cgroup.oom_kills(group("memory.events")),
        swap=swap,
        swap_limit=swap_limit,
        processes=_processes(record, host),
        io=_named(cgroup.io_v2(group("io.stat"))),
        hugepages=_hugepages(record, host, usage="current", highest="current"),
        pressure={name: stall for name, stall in stalls.items() if stall is not None},
        layer=layer,
    )


def _spec_v2(group: Group) -> CpuSpec | None:
    """cpu.max is "QUOTA PERIOD"; shares are what the runtimes' conversion made the weight from."""
    quota, _, period = group("cpu.max").strip().partition(" ")
    weight, length = cgroup.integer(group("cpu.weight")), cgroup.integer(period)
    if weight is None or length is None:
        return None
    shares = 2 + (weight - 1) * _ALL_SHARES // _FULL_WEIGHT
    return CpuSpec(period=length, shares=shares, quota=cgroup.integer(quota))


def _faults(numbers: dict[str, int], *, total: str) -> Faults:
    return Faults(
        own=numbers.get("pgfault", 0),
        own_major=numbers.get("pgmajfault", 0),
        all=numbers.get(f"{total}pgfault", 0),
        all_major=numbers.get(f"{total}pgmajfault", 0),
    )


def _hugepages(
    record: ContainerRecord, host: HostFacts, *, usage: str, highest: str
) -> dict[str, tuple[int, int]]:
    group = Group(record.cgroup, "hugetlb", host)
    found = {}
    for size in host.hugepage_sizes:
        now = cgroup.integer(group(f"hugetlb.{size}.{usage}"))
        most = cgroup.integer(group(f"hugetlb.{size}.{highest}"))
        if now is not None and most is not None:
            found[size] = now, most
    return found


def _processes(record: ContainerRecord, host: HostFacts) -> Processes | None:
    group = Group(record.cgroup, "pids", host)
    threads = cgroup.integer(group("pids.current"))
    if threads is None:
        return None
    pids: list[str] = []
    for directory in groups_below(group.directory):
        pids += (text(f"{directory}/cgroup.procs") or "").split()
    descriptors = sockets = 0
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                descriptors += 1
                with suppress(OSError):
                    sockets += os.readlink(entry.path).startswith("socket:")  # noqa: PTH115 - hot
    return Processes(
        count=len(pids),
        threads=threads,
        threads_limit=cgroup.limit(group("pids.max")),
        descriptors=descriptors,
        sockets=sockets,
        open_files_limit=_open_files(record),
    )


def _open_files(record: ContainerRecord) -> int | None:
    """The soft limit from /proc/PID/limits (proc_pid_limits(5))."""
    limits = text(f"/proc/{record.process.pid}/limits") if record.process is not None else None
    for line in (limits or "").splitlines():
        if line.startswith("Max open files"):
            return cgroup.integer(line.split()[3])
    return None


def _named(devices: tuple[cgroup.DeviceIo, ...]) -> tuple[tuple[str, cgroup.DeviceIo], ...]:
    return tuple((_device_name(io.major, io.minor), io) for io in devices)


def _device_name(major: int, minor: int) -> str:
    try:
        return f"/dev/{Path(f'/sys/dev/block/{major}:{minor}').readlink().name}"
    except OSError:
        return f"{major}:{minor}"


def _layer(use: FilesystemUse | None) -> Layer | None:
    if use is None:
        return None
    try:
        system, device = os.statvfs(use.mountpoint), Path(use.mountpoint).stat().st_dev
    except OSError:
        return None
    return Layer(
        device=_device_name(os.major(device), os.minor(device)),
        used=use.used_bytes,
        size=system.f_blocks * system.f_frsize,
        inodes=system.f_files,
        inodes_free=system.f_ffree,
    )
