"""Which cgroup an object gets: below the pod's parent, in the form that the node's driver implies."""

from __future__ import annotations

from oci.cgroup import CgroupPlace, place
from oci.facts import CgroupDriver
from shim.node import Node

_SEEN_BY_CADVISOR = "crio"


def placed(node: Node, parent: str, leaf: str) -> CgroupPlace:
    """The place of `leaf` (a pod's or a container's id). Raises BadInput for a parent of the wrong form.

    Where kubelet's cAdvisor is answered, what is below a parent (kubelet's, then) gets the name by which it
    knows CRI-O's: `crio-ID`, and with systemd `crio-ID.scope`.
    """
    systemd = node.host.cgroup.driver is CgroupDriver.SYSTEMD
    prefix = node.settings.cgroup.prefix
    if parent and node.settings.kubelet.cadvisor_socket is not None:
        if not systemd:
            leaf = f"{_SEEN_BY_CADVISOR}-{leaf}"
        prefix = _SEEN_BY_CADVISOR
    return place(parent, leaf, systemd=systemd, prefix=prefix)
