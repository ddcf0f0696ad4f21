"""What a CNI plugin is given: environment, standard input, and what its capabilities ask for.

CNI specification, sections 2 (protocol) and 3 (execution), and CONVENTIONS.md for capabilities.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from oci.cni import NetworkRequest
from oci.cni.configuration import Network, Plugin
from oci.errors import BadInput
from oci.workload import PodId

INGRESS_ANNOTATION: Final = "kubernetes.io/ingress-bandwidth"
EGRESS_ANNOTATION: Final = "kubernetes.io/egress-bandwidth"
_BURST: Final = 2**32 - 1  # bits; the bandwidth plugin divides by 8 and wants the result below 2**32
_RATE_LIMITS: Final = (1_000, 10**15)  # bits per second, as Kubernetes bounds the annotation
_UNSAFE = re.compile(r"[;=\x00-\x1f\x7f]")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)|[eE]([0-9]{1,2}))?\Z")
_SCALE = {
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip


class Verb(Enum):
    """CNI_COMMAND."""

    ADD = "ADD"
    CHECK = "CHECK"
    DEL = "DEL"
    GC = "GC"
    STATUS = "STATUS"


def arguments(request: NetworkRequest) -> str:
    """CNI_ARGS. Raises BadInput for a value that would be read as another argument."""
    meta = request.metadata
    pairs = (
        ("IgnoreUnknown", "1", ""),
        ("K8S_POD_NAMESPACE", meta.namespace, "config.metadata.namespace"),
        ("K8S_POD_NAME", meta.name, "config.metadata.name"),
        ("K8S_POD_INFRA_CONTAINER_ID", request.pod_id, "id"),
        ("K8S_POD_UID", meta.uid, "config.metadata.uid"),
    )
    for _, value, field in pairs:
        if _UNSAFE.search(value):
            raise BadInput(
                f"{field}: {value[:100]!r} has ';', '=' or a control character, which CNI_ARGS cannot hold"
            )
    return ";".join(f"{key}={value}" for key, value, _ in pairs)


def environment(
    verb: Verb,
    *,
    path: Sequence[str],
    container_id: str = "",
    netns: str = "",
    interface: str = "",
    args: str = "",
) -> dict[str, str]:
    """The plugin's CNI_* variables. Keys without a value are left out, but for CNI_NETNS of DEL."""
    values = {
        "CNI_COMMAND": verb.value,
        "CNI_PATH": ":".join(path),
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": netns,
        "CNI_IFNAME": interface,
        "CNI_ARGS": args,
    }
    return {key: value for key, value in values.items() if value or (key == "CNI_NETNS" and verb is Verb.DEL)}


def capability_values(request: NetworkRequest) -> dict[str, Any]:
    """The values for every capability that the request gives reason to, by the capability's name.

    Raises BadInput for a bandwidth annotation that is no quantity or out of bounds.
    """
    values: dict[str, Any] = {}
    mappings = [_port(mapping) for mapping in request.port_mappings if mapping.host_port > 0]
    if mappings:
        values["portMappings"] = mappings
    bandwidth = _bandwidth(request.annotations)
    if bandwidth:
        values["bandwidth"] = bandwidth
    if request.dns is not None:
        dns = request.dns
        lists = {"servers": dns.servers, "searches": dns.searches, "options": dns.options}
        values["dns"] = {key: list(entries) for key, entries in lists.items()}
    if request.annotations:
        values["io.kubernetes.cri.pod-annotations"] = dict(request.annotations)
    if request.cgroup_parent:
        values["cgroupPath"] = request.cgroup_parent
    return values


def _port(mapping: Any) -> dict[str, Any]:
    return {
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": mapping.protocol.lower() or "tcp",
        "hostIP": mapping.host_ip,
    }


def _bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    found = {}
    for direction, key in (("ingress", INGRESS_ANNOTATION), ("egress", EGRESS_ANNOTATION)):
        if key in annotations:
            found[f"{direction}Rate"] = rate(annotations[key], field=f"config.annotations[{key}]")
            found[f"{direction}Burst"] = _BURST
    return found


def rate(quantity: str, *, field: str) -> int:
    """A Kubernetes quantity ("10M") as bits per second. Raises BadInput."""
    match = _QUANTITY.match(quantity)
    if match is None:
        raise BadInput(f"{field}: {quantity[:60]!r} is no quantity such as 10M")
    scale = _SCALE[match[2]] if match[2] else 10 ** int(match[3] or 0)
    bits = int(Decimal(match[1]) * scale)
    low, high = _RATE_LIMITS
    if not low <= bits <= high:
        raise BadInput(f"{field}: {quantity} is outside 1k to 1P bits per second")
    return bits


def standard_input(
    network: Network,
    plugin: Plugin,
    *,
    capabilities: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """The configuration that one plugin reads: its keys, the network's name and version, and what was asked.

    `capabilities` are values of `capability_values`, of which it gets those that it declares; `previous` is
    the result so far. Deriving rules: specification, section 3.
    """
    document = {
        key: value for key, value in plugin.keys.items() if key not in ("capabilities", "cniVersions")
    }
    document["name"] = network.name
    document["cniVersion"] = network.version
    wanted = {key: value for key, value in (capabilities or {}).items() if key in plugin.capabilities}
    if wanted:
        document["runtimeConfig"] = {**document.get("runtimeConfig", {}), **wanted}
    if previous is not None:
        document["prevResult"] = dict(previous)
    document.update(extra or {})
    return json.dumps(document, separators=(",", ":")).encode()


def valid_attachments(attachments: Iterable[tuple[PodId, str]]) -> dict[str, Any]:
    """What GC is told to keep, as (pod, interface); under both keys that plugins read."""
    listed = [{"containerID": pod_id, "ifname": interface} for pod_id, interface in attachments]
    return {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
