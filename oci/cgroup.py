"""cgroup names and texts: where a container's cgroup is, and what the kernel's files say.

Pure: paths in, paths out; text in, numbers out. Reading files is `shim/stats.py`'s, making cgroups the
runtime's. Sources: kernel Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst, systemd.slice(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from oci.errors import BadInput

DEFAULT_PARENT = "/crisp"
DEFAULT_SLICE = "system.slice"
_SLICE = re.compile(r"(-|[A-Za-z0-9:_.\\@]+(-[A-Za-z0-9:_.\\@]+)*)\.slice\Z")
_LEAF = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_V1_UNLIMITED = 1 << 62  # the kernel prints PAGE_COUNTER_MAX, rounded to pages, for "no limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupPlace:
    """One cgroup under both its names."""

    config_path: str  # linux.cgroupsPath: "/parent/leaf", or "a.slice:prefix:id" for systemd
    kernel_path: str  # below the mount point of each hierarchy: "/parent/leaf", "/a.slice/prefix-id.scope"
    systemd: bool


def place(parent: str, leaf: str, *, systemd: bool, prefix: str = "crisp") -> CgroupPlace:
    """The cgroup of `leaf` (an id) below `parent`, in the form that the driver implies.

    With cgroupfs the parent is an absolute path; with systemd a slice, as a bare name or as a path that ends
    in one (kubelet sends both). An empty parent is Crisp's own. Raises BadInput naming cgroup_parent.
    """
    if not _LEAF.match(leaf):
        raise BadInput(f"cgroup leaf {leaf!r}: letters, digits, '_', '.' and '-' only")
    if systemd:
        slice_name = parent_slice(parent)
        return CgroupPlace(
            config_path=f"{slice_name}:{prefix}:{leaf}",
            kernel_path=f"{slice_path(slice_name)}/{prefix}-{leaf}.scope",
            systemd=True,
        )
    path = str(PurePosixPath(parent_path(parent)) / leaf)
    return CgroupPlace(config_path=path, kernel_path=path, systemd=False)


def parent_path(parent: str) -> str:
    """A checked cgroupfs parent: absolute, no `..`, no doubled slashes, no control characters."""
    if not parent:
        return DEFAULT_PARENT
    _check_text(parent)
    if not parent.startswith("/"):
        raise BadInput(f"linux.cgroup_parent: {parent!r} is not an absolute path (driver cgroupfs)")
    if parent.endswith(".slice") and "/" not in parent[1:]:
        raise BadInput(
            f"linux.cgroup_parent: {parent!r} names a systemd slice, but the cgroup driver is cgroupfs; "
            "set the same cgroupDriver in kubelet and crispd"
        )
    parts = [part for part in parent.split("/") if part]
    if ".." in parts or "." in parts:
        raise BadInput(f"linux.cgroup_parent: {parent!r} contains '.' or '..'")
    return "/" + "/".join(parts)


def parent_slice(parent: str) -> str:
    """A checked slice name: the last component of `parent`, which must end in .slice."""
    if not parent:
        return DEFAULT_SLICE
    _check_text(parent)
    name = parent.rstrip("/").rsplit("/", 1)[-1]
    if ".." in parent.split("/"):
        raise BadInput(f"linux.cgroup_parent: {parent!r} contains '..'")
    if not _SLICE.match(name):
        raise BadInput(
            f"linux.cgroup_parent: {parent!r} is not a systemd slice, but the cgroup driver is systemd; "
            "set the same cgroupDriver in kubelet and crispd"
        )
    return name


def slice_path(name: str) -> str:
    """Where systemd puts a slice: "a-b.slice" is at "/a.slice/a-b.slice" (systemd.slice(5))."""
    if not _SLICE.match(name):
        raise BadInput(f"systemd slice {name!r}: not a slice name")
    if name == "-.slice":
        return ""
    parts = name.removesuffix(".slice").split("-")
    return "".join(f"/{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts)))


def pod_path(parent: str, *, systemd: bool) -> str:
    """The kernel's path of a pod's parent cgroup, below each mount point."""
    return slice_path(parent_slice(parent)) if systemd else parent_path(parent)


def _check_text(parent: str) -> None:
    if len(parent) > 3000 or any(ord(c) < 0x20 or ord(c) == 0x7F for c in parent):
        raise BadInput("linux.cgroup_parent: longer than 3000 characters or with control characters")


# ---- texts -> numbers


def flat_keyed(text: str) -> dict[str, int]:
    """A flat-keyed file (memory.stat, memory.events, cpu.stat, memory.oom_control): "key value" lines.

    Lines that are not of that form are skipped: kernels add such lines, and a statistic is not worth failing.
    """
    numbers: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        number = integer(value)
        if key and number is not None:
            numbers[key] = number
    return numbers


def integer(text: str) -> int | None:
    """A file with one number; None for "max", an empty or an odd text."""
    stripped = text.strip()
    return int(stripped) if stripped.isascii() and stripped.isdigit() else None


def limit(text: str) -> int | None:
    """A limit file: None is unlimited ("max" on v2, a number near 2^63 on v1, -1)."""
    number = integer(text)
    return None if number is None or number >= _V1_UNLIMITED else number


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUsage:
    """Cumulative nanoseconds, and the throttling counters where the kernel has them."""

    total: int
    user: int = 0
    system: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled: int = 0


def cpu_v2(stat: str) -> CpuUsage | None:
    """From cpu.stat of version 2 (microseconds); None when it has no usage."""
    numbers = flat_keyed(stat)
    if "usage_usec" not in numbers:
        return None
    return CpuUsage(
        total=numbers["usage_usec"] * 1000,
        user=numbers.get("user_usec", 0) * 1000,
        system=numbers.get("system_usec", 0) * 1000,
        periods=numbers.get("nr_periods", 0),
        throttled_periods=numbers.get("nr_throttled", 0),
        throttled=numbers.get("throttled_usec", 0) * 1000,
    )


def cpu_v1(usage: str, *, user: str = "", system: str = "", stat: str = "") -> CpuUsage | None:
    """From cpuacct.usage, .usage_user, .usage_sys (all ns) and cpu.stat (throttled_time in ns)."""
    total = integer(usage)
    if total is None:
        return None
    numbers = flat_keyed(stat)
    return CpuUsage(
        total=total,
        user=integer(user) or 0,
        system=integer(system) or 0,
        periods=numbers.get("nr_periods", 0),
        throttled_periods=numbers.get("nr_throttled", 0),
        throttled=numbers.get("throttled_time", 0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUsage:
    """Bytes, and cumulative page faults. None is unlimited (limits) or not known (peak)."""

    usage: int
    working_set: int
    rss: int = 0
    cache: int = 0
    mapped_file: int = 0
    kernel: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    limit: int | None = None
    peak: int | None = None
    failures: int = 0  # memory.failcnt; version 2 has none

    @property
    def available(self) -> int | None:
        """Limit minus working set; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.working_set)


def memory_v2(current: str, *, stat: str, maximum: str = "", peak: str = "") -> MemoryUsage | None:
    """From memory.current, memory.stat, memory.max and memory.peak (kernel 5.19 and later)."""
    usage = integer(current)
    if usage is None:
        return None
    numbers = flat_keyed(stat)
    return MemoryUsage(
        usage=usage,
        working_set=max(0, usage - numbers.get("inactive_file", 0)),
        rss=numbers.get("anon", 0),
        cache=numbers.get("file", 0),
        mapped_file=numbers.get("file_mapped", 0),
        kernel=numbers.get("kernel", numbers.get("slab", 0) + numbers.get("kernel_stack", 0)),
        page_faults=numbers.get("pgfault", 0),
        major_page_faults=numbers.get("pgmajfault", 0),
        limit=limit(maximum),
        peak=integer(peak),
    )


def memory_v1(
    usage_text: str, *, stat: str, maximum: str = "", peak: str = "", kernel: str = "", failcnt: str = ""
) -> MemoryUsage | None:
    """From memory.usage_in_bytes, .stat, .limit_in_bytes, .max_usage_in_bytes, .kmem.usage_in_bytes."""
    usage = integer(usage_text)
    if usage is None:
        return None
    numbers = flat_keyed(stat)

    def total(key: str) -> int:
        return numbers.get(f"total_{key}", numbers.get(key, 0))

    return MemoryUsage(
        usage=usage,
        working_set=max(0, usage - total("inactive_file")),
        rss=total("rss"),
        cache=total("cache"),
        mapped_file=total("mapped_file"),
        kernel=integer(kernel) or 0,
        page_faults=total("pgfault"),
        major_page_faults=total("pgmajfault"),
        limit=limit(maximum),
        peak=integer(peak),
        failures=integer(failcnt) or 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapUsage:
    """Bytes; `limit` None is unlimited."""

    usage: int
    limit: int | None = None

    @property
    def available(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.usage)


def swap_v2(current: str, *, maximum: str = "") -> SwapUsage | None:
    """From memory.swap.current and memory.swap.max."""
    usage = integer(current)
    return None if usage is None else SwapUsage(usage=usage, limit=limit(maximum))


def swap_v1(memory: MemoryUsage, *, memsw_usage: str, memsw_limit: str = "") -> SwapUsage | None:
    """From the memory+swap counters of version 1, which include the memory itself."""
    both = integer(memsw_usage)
    if both is None:
        return None
    ceiling = limit(memsw_limit)
    swap_limit = None if ceiling is None or memory.limit is None else max(0, ceiling - memory.limit)
    return SwapUsage(usage=max(0, both - memory.usage), limit=swap_limit)


def oom_kills(text: str) -> int:
    """OOM kills counted by memory.events (v2) or memory.oom_control (v1, kernel 4.13 and later)."""
    return flat_keyed(text).get("oom_kill", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """One line of a pressure file: averages in percent, `total` in nanoseconds (the kernel has µs)."""

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureStall:
    some: Pressure
    full: Pressure


def pressure(text: str) -> PressureStall | None:
    """A pressure file (Documentation/accounting/psi.rst); None when PSI is off or the text is odd.

    cpu.pressure of kernels before 5.13 has no `full` line: it is zero then.
    """
    lines: dict[str, Pressure] = {}
    for line in text.splitlines():
        name, *pairs = line.split() or [""]
        members = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        try:
            lines[name] = Pressure(
                avg10=float(members["avg10"]),
                avg60=float(members["avg60"]),
                avg300=float(members["avg300"]),
                total=int(members["total"]) * 1000,
            )
        except (KeyError, ValueError):
            return None
    if "some" not in lines:
        return None
    return PressureStall(some=lines["some"], full=lines.get("full", Pressure()))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIo:
    """Cumulative bytes and operations of one block device."""

    major: int
    minor: int
    values: Mapping[str, int] = field(default_factory=dict)  # rbytes, wbytes, rios, wios


def io_v2(text: str) -> tuple[DeviceIo, ...]:
    """io.stat: "8:0 rbytes=1 wbytes=2 rios=3 ..." a line."""
    devices = []
    for line in text.splitlines():
        name, *pairs = line.split() or [""]
        number = _device(name)
        if number is None:
            continue
        values = {}
        for pair in pairs:
            key, _, value = pair.partition("=")
            amount = integer(value)
            if amount is not None:
                values[key] = amount
        devices.append(DeviceIo(major=number[0], minor=number[1], values=values))
    return tuple(devices)


def io_v1(service_bytes: str, serviced: str = "") -> tuple[DeviceIo, ...]:
    """blkio.throttle.io_service_bytes and .io_serviced: "8:0 Read 4096" a line, under version 2's names."""
    names = {("Read", 0): "rbytes", ("Write", 0): "wbytes", ("Read", 1): "rios", ("Write", 1): "wios"}
    found: dict[tuple[int, int], dict[str, int]] = {}
    for which, text in enumerate((service_bytes, serviced)):
        for line in text.splitlines():
            words = line.split()
            if len(words) != 3:
                continue
            number, key, amount = _device(words[0]), names.get((words[1], which)), integer(words[2])
            if number is not None and key is not None and amount is not None:
                found.setdefault(number, {})[key] = amount
    return tuple(DeviceIo(major=a, minor=b, values=values) for (a, b), values in found.items())


def _device(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(":")
    a, b = integer(major), integer(minor)
    return None if a is None or b is None else (a, b)


def own_paths(text: str) -> dict[str, str]:
    """/proc/PID/cgroup -> controller (or "name=..." , "" for version 2) -> path (cgroups(7))."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths
