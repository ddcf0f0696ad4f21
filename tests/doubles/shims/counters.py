"""What the kernel counts in a process' cgroups, of version 1 or 2, packed as shims tell it."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import Message

from shim.runtimes.shimv2.proto import cgroup1_pb2, cgroup2_pb2


def _groups(pid: int) -> dict[str, Path]:
    """The directories of a process' cgroups by controller; "" is version 2's."""
    places = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        type_, _, options = right.split(" ", 2)
        if type_ == "cgroup2":
            places[""] = Path(left.split(" ")[4])
        elif type_ == "cgroup":
            places.update({name: Path(left.split(" ")[4]) for name in options.split(" ")[-1].split(",")})
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name in places:
                found[name] = places[name] / path.lstrip("/")
    return found


def kills_file(pid: int) -> Path | None:
    """Where the kernel counts kills for want of memory; open as long as the group is there."""
    try:
        groups = _groups(pid)
    except OSError:
        return None
    file = (
        groups["memory"] / "memory.oom_control"
        if "memory" in groups
        else groups.get("", Path()) / "memory.events"
    )
    return file if file.exists() else None


def usage(pid: int) -> tuple[int, Message]:
    """The version of the cgroups and their metrics."""
    groups = _groups(pid)
    if "memory" not in groups:
        metrics = cgroup2_pb2.Metrics()
        metrics.memory.usage = int((groups[""] / "memory.current").read_text())
        metrics.pids.current = int((groups[""] / "pids.current").read_text())
        return 2, metrics
    old = cgroup1_pb2.Metrics()
    old.memory.usage.usage = int((groups["memory"] / "memory.usage_in_bytes").read_text())
    old.cpu.usage.total = int((groups["cpuacct"] / "cpuacct.usage").read_text())
    if "pids" in groups:
        old.pids.current = int((groups["pids"] / "pids.current").read_text())
    return 1, old
