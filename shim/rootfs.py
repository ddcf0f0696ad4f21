"""A container's root file system as a list of mounts, which a driver carries out or hands to its runtime."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsMount:
    """One mount. For an overlay `lower` lists the layers, the top one first; other types use `source`."""

    type: str  # "overlay", "bind", "ext4", ...
    source: str = ""
    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rootfs:
    """Mounts in the order in which they are stacked on the container's `rootfs` directory."""

    mounts: tuple[RootfsMount, ...]
