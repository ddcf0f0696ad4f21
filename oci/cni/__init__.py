"""CNI as values: what a plugin is asked and what it answers (specification 1.1, results of 0.3 to 1.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from oci.workload import DnsConfig, PodId, PodMetadata, PortMapping


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """One pod's attachment. `netns` is the pinned path, "" once the namespace is gone (DEL still runs)."""

    pod_id: PodId
    metadata: PodMetadata
    netns: str
    port_mappings: tuple[PortMapping, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    dns: DnsConfig | None = None
    cgroup_parent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkResult:
    """What the pod got: the addresses of its default interface, the primary one first."""

    interface: str = "eth0"
    addresses: tuple[str, ...] = ()  # without prefix length
    networks: tuple[str, ...] = ()  # names of the attached networks, in order of attachment
