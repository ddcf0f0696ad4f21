"""UpdatePodSandboxResources: kubelet has changed the pod's own cgroup, and says what it holds now."""

from __future__ import annotations

from dataclasses import replace

from oci.workload import PodId, Resources
from shim.node import Node
from shim.pods.lookup import current


async def update(node: Node, id_: PodId, *, overhead: Resources | None, resources: Resources | None) -> None:
    """Keep the new totals; None keeps the old. Nothing is written: the cgroup is kubelet's. Raises Absent."""
    key = ("update pod", id_, node.new_id())
    await node.operations.join(key, None, lambda: _update(node, id_, overhead, resources))


async def _update(node: Node, id_: PodId, overhead: Resources | None, resources: Resources | None) -> None:
    async with node.operations.exclusive(("pod", id_)):
        record = current(node.store, id_)
        await node.store.put(
            replace(record, overhead=overhead or record.overhead, resources=resources or record.resources)
        )
