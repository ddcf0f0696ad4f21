"""StopPodSandbox and RemovePodSandbox: every step can be repeated, the next call resumes a failed one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from oci.errors import Internal
from oci.workload import ContainerId, PodId
from shim.containers import remove as container_remove
from shim.containers import stop as container_stop
from shim.containers.exits import Exits
from shim.containers.stop import Stops
from shim.lifecycle.table import PodEvent, next_pod_state
from shim.lifecycle.undo import Step, run_all
from shim.node import Node
from shim.pods import files, imagevolumes, init
from shim.pods.run import network_request
from shim.records import ContainerState, PodRecord, PodState


async def stop(node: Node, exits: Exits, stops: Stops, id_: PodId) -> None:
    """Kill the pod's containers, detach its network, release its namespaces; it is NOTREADY afterwards."""
    await node.operations.join(
        ("stop pod", id_), None, lambda: _exclusively(node, exits, stops, id_, remove=False)
    )


async def remove(node: Node, exits: Exits, stops: Stops, id_: PodId) -> None:
    """Stop the pod, remove its containers and all that is kept of it. The log directory stays."""
    await node.operations.join(
        ("remove pod", id_), None, lambda: _exclusively(node, exits, stops, id_, remove=True)
    )


async def _exclusively(node: Node, exits: Exits, stops: Stops, id_: PodId, *, remove: bool) -> None:
    async with node.operations.exclusive(("pod", id_)):
        record = node.store.pods.get(id_)
        if record is None:
            return
        if record.state not in (PodState.CREATING, PodState.REMOVING) and not _stopped(record):
            record = await _stop(node, exits, stops, record)
        if remove:
            await _remove(node, exits, stops, record)


def _stopped(record: PodRecord) -> bool:
    return record.state is PodState.NOTREADY and not record.network_owed and not record.fault


async def _stop(node: Node, exits: Exits, stops: Stops, record: PodRecord) -> PodRecord:
    if record.state is not PodState.STOPPING:
        record = replace(record, state=next_pod_state(record.state, PodEvent.STOP))
        await node.store.put(record)
    # A container whose creation is under way sees STOPPING at its commit and undoes itself.
    await asyncio.gather(*(_end(node, exits, stops, c.id) for c in node.store.containers_of(record.id)))
    record = await release(node, record)
    record = replace(record, state=next_pod_state(record.state, PodEvent.STOPPED))
    await node.store.put(record)
    return record


async def _end(node: Node, exits: Exits, stops: Stops, id_: ContainerId) -> None:
    container = node.store.containers.get(id_)
    if container is not None and container.state is not ContainerState.CREATING:
        await container_stop.stop(node, exits, stops, id_, grace=0)


async def release(node: Node, record: PodRecord) -> PodRecord:
    """Give back what the pod holds of the machine; returns the record with what was paid.

    Every step runs even if another fails; the failures are then kept in the record and raised as Internal.
    """
    paid = {"network": False}

    async def detach() -> None:
        gone = not node.namespaces.intact(record.namespaces)
        await node.network.detach(network_request(record, netns_gone=gone))
        paid["network"] = True

    steps: list[tuple[str, float, Step]] = []
    half_made = record.created_at == 0 and init.needed(node.driver_of(record), record.spec)
    if record.init is not None or half_made:
        steps.append(("first process", 60.0, lambda: init.remove(node, record)))
    if record.network_owed:
        steps.append(("network", 90.0, detach))
    debts = await run_all(steps)
    # The namespaces go last: plugins look into them.
    debts += await run_all(
        [
            ("namespaces", 30.0, lambda: node.namespaces.unpin(record.namespaces)),
            ("image volumes", 30.0, lambda: imagevolumes.release(node, record.id)),
            ("/dev/shm", 30.0, lambda: files.unmount(node.paths.pod(record.id))),
        ]
    )
    fault = "; ".join(f"{debt.step}: {debt.error}" for debt in debts)
    init_gone = all(debt.step != "first process" for debt in debts)
    after = replace(
        record,
        fault=fault,
        network_owed=record.network_owed and not paid["network"],
        network=None if paid["network"] else record.network,
        init=None if init_gone else record.init,
        init_monitor=None if init_gone else record.init_monitor,
    )
    if fault:
        await node.store.put(after)
        raise Internal(f"pod sandbox {record.id} is not wholly stopped, call again to resume: {fault}")
    return after


async def _remove(node: Node, exits: Exits, stops: Stops, record: PodRecord) -> None:
    if record.state is not PodState.REMOVING:
        record = replace(record, state=next_pod_state(record.state, PodEvent.REMOVE))
        await node.store.put(record)
    await asyncio.gather(
        *(container_remove.remove(node, exits, stops, c.id) for c in node.store.containers_of(record.id))
    )
    # A pod whose creation failed half-way may still hold something.
    record = await release(node, record)
    await files.remove(node.paths.pod(record.id))
    await node.store.delete(record)
