"""Device nodes and the device rules of the cgroup (runtime-spec config-linux.md, "Devices").

The runtime itself adds the nodes that every container has (null, zero, full, random, urandom, tty, ptmx) and
the rules for them.
"""

from __future__ import annotations

from typing import Any

from oci.bundle.inputs import BundleInputs, ResolvedDevice
from oci.bundle.text import absolute_path
from oci.errors import BadInput
from oci.facts import DeviceNode

_DENY_ALL = {"allow": False, "access": "rwm"}
_ALLOW_ALL = {"allow": True, "access": "rwm"}


def permissions(field: str, text: str) -> str:
    """Checked and ordered permissions: some of r, w and m, each once."""
    if not text or any(letter not in "rwm" for letter in text):
        raise BadInput(f"{field}: {text[:20]!r} is not made of the letters r, w and m")
    return "".join(letter for letter in "rwm" if letter in text)


def devices(inputs: BundleInputs) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`linux.devices` and `linux.resources.devices`.

    A privileged container gets every node of the host (unless its handler says otherwise) and may use any
    device; the others may use what was asked for. Of two nodes at one path the later wins.
    """
    nodes: dict[str, dict[str, Any]] = {}
    privileged = inputs.container.security.privileged
    if privileged and not inputs.handler.privileged_without_host_devices:
        for node in inputs.host.devices:
            nodes[node.path] = _node(node)
    rules: list[dict[str, Any]] = [dict(_ALLOW_ALL if privileged else _DENY_ALL)]
    for n, device in enumerate(inputs.devices):
        field = f"config.devices[{n}]"
        path = absolute_path(f"{field}.container_path", device.node.path)
        made = {**_node(device.node), "path": path}
        if inputs.defaults.device_ownership_from_user and inputs.user.uid:
            made.update(uid=inputs.user.uid, gid=inputs.user.gid)
        nodes[path] = made
        if not privileged:
            rules.append(_rule(field, device))
    for device in inputs.edit_devices:
        nodes[device.node.path] = _node(device.node)
        if not privileged and device.node.kind in ("b", "c"):
            rules.append(_rule("CDI device", device))
    return list(nodes.values()), rules


def _node(node: DeviceNode) -> dict[str, Any]:
    return {
        "path": node.path,
        "type": node.kind,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
    }


def _rule(field: str, device: ResolvedDevice) -> dict[str, Any]:
    return {
        "allow": True,
        "type": device.node.kind,
        "major": device.node.major,
        "minor": device.node.minor,
        "access": permissions(f"{field}.permissions", device.permissions),
    }
