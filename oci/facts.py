"""What was seen on the machine, as values: the only way in which the pure code learns about the host.

`shim/facts/` looks and fills these in; nothing here looks at anything. Paths are absolute, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class CgroupDriver(Enum):
    """Who makes cgroups: systemd (parents are slices) or the runtime itself (parents are paths)."""

    SYSTEMD = "systemd"
    CGROUPFS = "cgroupfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupFacts:
    """The cgroup hierarchies. A hybrid machine, whose controllers are on v1 mounts, is version 1."""

    version: int  # 1 or 2
    driver: CgroupDriver
    mounts: Mapping[str, str]  # controller -> mount point; on v2 every controller has the one mount point
    own_path: str = "/"  # the daemon's own cgroup, below the mount points (v1: of the memory hierarchy)

    def has(self, controller: str) -> bool:
        """Whether limits of this controller ("memory", "pids", "hugetlb", ...) can be set."""
        return controller in self.mounts


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A device node: `path` where it is (or shall be in the container), `kind` "c", "b" or "p"."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int  # permission bits
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The machine and what the daemon may do on it, gathered once at start."""

    hostname: str
    kernel: tuple[int, int, int]
    machine: str  # uname -m: "x86_64", "aarch64", ...
    cgroup: CgroupFacts
    capabilities: frozenset[str]  # permitted and bounding both: what it can hand on ("CAP_CHOWN", ...)
    bounding: frozenset[str]
    rlimits: Mapping[str, int] = field(default_factory=dict)  # hard limits by name, -1 is unlimited
    lowest_oom_score_adj: int = -1000
    apparmor: bool = False
    selinux: bool = False
    seccomp: bool = True
    swap_accounting: bool = False
    hugepage_sizes: tuple[str, ...] = ()  # "2MB", "1GB"
    devices: tuple[DeviceNode, ...] = ()  # every node below /dev, for privileged containers

    def can_raise_limits(self) -> bool:
        """Whether hard rlimits can be raised and the OOM score lowered below the daemon's own."""
        return "CAP_SYS_RESOURCE" in self.capabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedUser:
    """The process's first identity, looked up in the container's own root file system."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()  # supplementary, ascending, as they go into the OCI configuration
    home: str = "/"
    name: str = ""  # "" when the uid has no entry in the image's passwd


class Peering(Enum):
    """How the mount that holds a path propagates: the optional fields of proc_pid_mountinfo(5)."""

    PRIVATE = "private"
    SLAVE = "slave"
    SHARED = "shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """A mount source that exists. `path` has no symlinks left."""

    path: str
    is_directory: bool
    peering: Peering | None = None  # None: not looked at, because the request does not propagate
    file_system: str = ""  # type of the mount that holds it ("ext4", "proc"), "" when not looked at
