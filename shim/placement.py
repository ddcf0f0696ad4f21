"""Which cgroup an object gets: below the pod's parent, in the form that the node's driver implies."""

from __future__ import annotations

from oci.cgroup import CgroupPlace, place
from oci.facts import CgroupDriver
from shim.node import Node


def placed(node: Node, parent: str, leaf: str) -> CgroupPlace:
    """The place of `leaf` (a pod's or a container's id). Raises BadInput for a parent of the wrong form."""
    return place(
        parent,
        leaf,
        systemd=node.host.cgroup.driver is CgroupDriver.SYSTEMD,
        prefix=node.settings.cgroup.prefix,
    )
