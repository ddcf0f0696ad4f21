"""RemoveContainer: kill what runs, remove what is kept. The log file stays."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from oci.errors import CrispError, Internal
from oci.workload import ContainerId
from shim.containers.exits import Exits
from shim.containers.lookup import has_process
from shim.containers.rootfs import taking_away
from shim.containers.stop import Stops, stop
from shim.containers.target import target
from shim.files import remove_tree
from shim.lifecycle.table import ContainerEvent, next_container_state
from shim.lifecycle.undo import Step, run_all
from shim.node import Node
from shim.records import ContainerRecord, ContainerState
from shim.threads import in_thread


async def remove(node: Node, exits: Exits, stops: Stops, id_: ContainerId) -> None:
    """Remove the container in whatever state; absent is success. Raises Internal when a step fails."""
    await node.operations.join(("remove container", id_), None, lambda: _remove(node, exits, stops, id_))


async def _remove(node: Node, exits: Exits, stops: Stops, id_: ContainerId) -> None:
    record = node.store.containers.get(id_)
    if record is not None and has_process(record):
        await stop(node, exits, stops, id_, grace=0)
    async with node.operations.exclusive(("container", id_)):
        record = node.store.containers.get(id_)
        if record is None:
            return
        if record.state is not ContainerState.REMOVING:
            record = replace(
                record,
                state=next_container_state(record.state, ContainerEvent.REMOVE, name=f"container {id_}"),
            )
            await node.store.put(record)
        await release(node, record)
        await node.store.delete(record)


async def release(node: Node, record: ContainerRecord) -> None:
    """Give back everything that a REMOVING container holds; all steps run, then a failure is raised."""
    driver = node.driver_of(record)
    of = target(node.paths, record)

    async def delete_directory() -> None:
        await in_thread(remove_tree, of.directory)

    steps: list[tuple[str, float, Step]] = []
    if record.process is not None or record.fault:
        # Otherwise it never ran, or its end already took the runtime's state with it.
        steps.append(("runtime", 60.0, lambda: driver.delete(of)))
    steps += taking_away(node, driver, record)
    debts = await run_all(steps)
    if not debts:
        # Only once nothing is mounted below it.
        debts = await run_all([("directory", 300.0, delete_directory)])
    if debts:
        fault = "; ".join(f"{debt.step}: {debt.error}" for debt in debts)
        with suppress(CrispError):
            await node.store.put(replace(record, fault=fault))
        raise Internal(f"container {record.id} is not wholly removed, call again to resume: {fault}")
