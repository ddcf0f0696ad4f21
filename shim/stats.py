"""What containers and file systems use, as values; how the numbers are read is not known here.

Times are nanoseconds since the Unix epoch, taken when the numbers were read. None means that this kernel,
cgroup version or runtime does not say; it is never an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

from oci.workload import ContainerId


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
class ImageStoreUsage:
    """The store's own file system, and that of the writable layers (possibly the same)."""

    images: FilesystemUse
    containers: FilesystemUse
