"""What containers and file systems use, as values, and the reading of them.

Times are nanoseconds since the Unix epoch, taken when the numbers were read. None means that this kernel,
cgroup version or runtime does not say; it is never an estimate. What the kernel's texts mean is
`oci/cgroup.py`'s to know.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from oci import cgroup
from oci.facts import HostFacts
from oci.netdev import InterfaceCounters
from oci.workload import ContainerId, PodId
from shim.facts.reading import text
from shim.records import ContainerRecord, ContainerState


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureLine:
    """One line of a PSI file (Documentation/accounting/psi.rst)."""

    total: int  # nanoseconds; the kernel counts microseconds
    avg10: float  # per cent over 10 seconds
    avg60: float
    avg300: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    full: PressureLine
    some: PressureLine


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUse:
    timestamp: int
    usage_core_nano_seconds: int | None = None  # since the container's start, over all processors
    usage_nano_cores: int | None = None  # rate over the last interval; 1e9 is one processor
    pressure: Pressure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Bytes, except the faults."""

    timestamp: int
    working_set: int | None = None  # usage less the inactive file cache
    available: int | None = None  # limit less working set; None without a limit
    usage: int | None = None
    rss: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    pressure: Pressure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapUse:
    """Bytes."""

    timestamp: int
    available: int | None = None
    usage: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IoUse:
    timestamp: int
    pressure: Pressure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemUse:
    """What something takes on the file system mounted at `mountpoint`, an existing directory."""

    timestamp: int
    mountpoint: str
    used_bytes: int
    inodes_used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerUsage:
    """One running container; a part is None where it could not be read at all."""

    id: ContainerId
    cpu: CpuUse | None = None
    memory: MemoryUse | None = None
    swap: SwapUse | None = None
    io: IoUse | None = None
    writable_layer: FilesystemUse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    timestamp: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkUse:
    """The interfaces of a pod's own network but loopback; `default` is the one that CNI attached first."""

    timestamp: int
    default: InterfaceCounters | None = None
    others: tuple[InterfaceCounters, ...] = ()

    @property
    def interfaces(self) -> tuple[InterfaceCounters, ...]:
        return self.others if self.default is None else (self.default, *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUsage:
    """A READY pod: its cgroup, its network (None with the host's), and its running containers."""

    id: PodId
    cpu: CpuUse | None = None
    memory: MemoryUse | None = None
    process: ProcessUse | None = None
    io: IoUse | None = None
    network: NetworkUse | None = None
    containers: tuple[ContainerUsage, ...] = ()


_MOST_ENTRIES = 1_000_000
"""Of one writable layer; a larger one is not counted, since half a count would be an estimate."""


def read_container(record: ContainerRecord, host: HostFacts) -> ContainerUsage:
    """What a running container uses now, without its writable layer; empty for one that does not run.

    Missing files make parts None, never an error. Blocking.
    """
    if record.state is not ContainerState.RUNNING or not record.cgroup:
        return ContainerUsage(id=record.id)
    memory = _memory(record.cgroup, host)
    return ContainerUsage(
        id=record.id,
        cpu=read_cpu(record.cgroup, host),
        memory=None if memory is None else _memory_use(memory, record.cgroup, host),
        swap=_swap(memory, record.cgroup, host),
        io=read_io(record.cgroup, host),
    )


class Group:
    """The files of one cgroup in the hierarchy of one controller; an absent file reads as ""."""

    def __init__(self, path: str, controller: str, host: HostFacts) -> None:
        # On version 2 the mount is one, and cpu.stat is there without the controller.
        mounts = host.cgroup.mounts
        mount = mounts.get(controller) or (
            next(iter(mounts.values()), "") if host.cgroup.version == 2 else ""
        )
        self.directory = f"{mount}/{path.strip('/')}" if mount else ""

    def __call__(self, name: str) -> str:
        return (text(f"{self.directory}/{name}") or "") if self.directory else ""


def read_cpu(path: str, host: HostFacts) -> CpuUse | None:
    """CPU time of the cgroup at `path`, below the mounts; None when it is gone. Blocking."""
    if host.cgroup.version == 2:
        group = Group(path, "cpu", host)
        usage, stall = cgroup.cpu_v2(group("cpu.stat")), _pressure(group("cpu.pressure"))
    else:
        usage, stall = cgroup.cpu_v1(Group(path, "cpuacct", host)("cpuacct.usage")), None
    if usage is None:
        return None
    return CpuUse(timestamp=time.time_ns(), usage_core_nano_seconds=usage.total, pressure=stall)


def _memory(path: str, host: HostFacts) -> cgroup.MemoryUsage | None:
    group = Group(path, "memory", host)
    if host.cgroup.version == 2:
        return cgroup.memory_v2(
            group("memory.current"), stat=group("memory.stat"), maximum=group("memory.max")
        )
    return cgroup.memory_v1(
        group("memory.usage_in_bytes"),
        stat=group("memory.stat"),
        maximum=group("memory.limit_in_bytes"),
    )


def read_memory(path: str, host: HostFacts) -> MemoryUse | None:
    """Memory of the cgroup at `path`, below the mounts; None when it is gone. Blocking."""
    usage = _memory(path, host)
    return None if usage is None else _memory_use(usage, path, host)


def _memory_use(usage: cgroup.MemoryUsage, path: str, host: HostFacts) -> MemoryUse:
    return MemoryUse(
        timestamp=time.time_ns(),
        working_set=usage.working_set,
        available=usage.available,
        usage=usage.usage,
        rss=usage.rss,
        page_faults=usage.page_faults,
        major_page_faults=usage.major_page_faults,
        pressure=_pressure(Group(path, "memory", host)("memory.pressure"))
        if host.cgroup.version == 2
        else None,
    )


def _swap(memory: cgroup.MemoryUsage | None, path: str, host: HostFacts) -> SwapUse | None:
    """Swap of a cgroup whose memory was just read; None without swap accounting."""
    if not host.swap_accounting:
        return None
    group = Group(path, "memory", host)
    if host.cgroup.version == 2:
        usage = cgroup.swap_v2(group("memory.swap.current"), maximum=group("memory.swap.max"))
    elif memory is not None:
        # The counters of version 1 include the memory: what remains of them is swap.
        usage = cgroup.swap_v1(
            memory,
            memsw_usage=group("memory.memsw.usage_in_bytes"),
            memsw_limit=group("memory.memsw.limit_in_bytes"),
        )
    else:
        usage = None
    if usage is None:
        return None
    return SwapUse(timestamp=time.time_ns(), available=usage.available, usage=usage.usage)


def read_io(path: str, host: HostFacts) -> IoUse | None:
    """IO pressure of the cgroup at `path`; None on version 1 and without PSI. Blocking."""
    stall = _pressure(Group(path, "io", host)("io.pressure")) if host.cgroup.version == 2 else None
    return None if stall is None else IoUse(timestamp=time.time_ns(), pressure=stall)


def read_processes(path: str, host: HostFacts) -> ProcessUse | None:
    """The processes in the cgroup at `path` and below it; None when it is gone. Blocking."""
    top = Group(path, "pids", host).directory
    if not top or text(f"{top}/cgroup.procs") is None:
        return None
    count = 0
    for directory in groups_below(top):
        count += (text(f"{directory}/cgroup.procs") or "").count("\n")
    return ProcessUse(timestamp=time.time_ns(), count=count)


def groups_below(top: str) -> Iterator[str]:
    """The directory of a cgroup and those of all groups in it. Blocking.

    A directory in which the kernel counts no other (two links) is not listed.
    """
    pending = [top]
    while pending:
        directory = pending.pop()
        yield directory
        try:
            if os.stat(directory).st_nlink == 2:  # noqa: PTH116 - hot
                continue
            with os.scandir(directory) as entries:
                pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # gone while we look


def _pressure(content: str) -> Pressure | None:
    seen = cgroup.pressure(content)
    if seen is None:
        return None
    full, some = (
        PressureLine(total=line.total, avg10=line.avg10, avg60=line.avg60, avg300=line.avg300)
        for line in (seen.full, seen.some)
    )
    return Pressure(full=full, some=some)


def read_layer(directory: Path, *, mountpoint: Path) -> FilesystemUse | None:
    """Bytes on disk and inodes below `directory`, each inode once, other file systems left out.

    None when the directory is absent, cannot be read or holds over a million entries. Blocking.
    """
    try:
        top = directory.lstat()
    except OSError:
        return None
    used, linked, inodes = top.st_blocks * 512, set[int](), 1
    pending = [str(directory)]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except OSError:
            continue  # removed while we look
        with entries:
            for entry in entries:
                try:
                    seen = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if seen.st_dev != top.st_dev or seen.st_ino in linked:
                    continue
                if stat.S_ISDIR(seen.st_mode):
                    pending.append(entry.path)
                elif seen.st_nlink > 1:
                    linked.add(seen.st_ino)
                used += seen.st_blocks * 512
                inodes += 1
                if inodes > _MOST_ENTRIES:
                    return None
    return FilesystemUse(
        timestamp=time.time_ns(), mountpoint=str(mountpoint), used_bytes=used, inodes_used=inodes
    )
