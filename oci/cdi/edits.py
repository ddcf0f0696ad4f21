"""What devices change in a container's configuration (CDI SPEC.md); `oci/bundle/` carries it out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from oci.cdi.spec import DeviceNodeEdit, Hook, MountEdit


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """In the order in which they are made; the later of two at one path, or of one variable, wins."""

    env: tuple[str, ...] = ()
    nodes: tuple[DeviceNodeEdit, ...] = ()
    mounts: tuple[MountEdit, ...] = ()
    hooks: tuple[Hook, ...] = ()
    groups: tuple[int, ...] = ()


def union(parts: Iterable[Edits]) -> Edits:
    """All of them, in their order."""
    found = list(parts)
    return Edits(
        env=tuple(one for part in found for one in part.env),
        nodes=tuple(one for part in found for one in part.nodes),
        mounts=tuple(one for part in found for one in part.mounts),
        hooks=tuple(one for part in found for one in part.hooks),
        groups=tuple(one for part in found for one in part.groups),
    )
