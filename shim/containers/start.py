"""StartContainer: create in the runtime, let it run, and say so; or EXITED with the runtime's own words."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from oci.errors import CrispError, WrongState
from oci.workload import ContainerId
from shim.containers.bundle import read_config
from shim.containers.lookup import current
from shim.containers.pid_target import pid_target
from shim.containers.target import target
from shim.lifecycle.table import ContainerEvent, next_container_state
from shim.lifecycle.undo import to_the_end
from shim.node import Node
from shim.pods.lookup import current as current_pod
from shim.records import ContainerRecord, ContainerState, PodState
from shim.runtimes.driver import Driver

log = logging.getLogger(__name__)

START_FAILED_CODE = 128


async def start(node: Node, id_: ContainerId, delivered: set[ContainerId]) -> None:
    """Run the container's process; returns when it was executed, without waiting for its end.

    Raises WrongState unless the container is CREATED (a retry whose first answer never arrived is served),
    and the runtime's error when the process cannot run: then the container is EXITED, StartError, 128.
    """
    await node.operations.join(("start container", id_), None, lambda: _start(node, id_, delivered))
    delivered.add(id_)


async def _start(node: Node, id_: ContainerId, delivered: set[ContainerId]) -> None:
    async with node.operations.exclusive(("container", id_)):
        record = current(node.store, id_)
        if record.state is ContainerState.RUNNING and id_ not in delivered:
            return
        if record.state is ContainerState.STARTING:  # nobody starts it: an earlier start was cut off
            record = await reset(node, record)
        name = f"container {id_}"
        starting = replace(record, state=next_container_state(record.state, ContainerEvent.START, name=name))
        await node.store.put(starting)
        driver = node.driver_of(record)
        try:
            _require_ready(node, starting)
            pid_target(node.store, starting.realm, starting.pod_id, starting.spec)
            await node.store.put(await _run(node, driver, starting))
        except BaseException as error:
            await to_the_end(_undo(node, driver, starting, error))
            raise


async def reset(node: Node, record: ContainerRecord) -> ContainerRecord:
    """CREATED again after a start that was cut off, with nothing left in the runtime. Under the lock."""
    await node.driver_of(record).delete(target(node.paths, record))
    state = next_container_state(record.state, ContainerEvent.RESET)
    after = replace(record, state=state, process=None, monitor=None)
    await node.store.put(after)
    return after


async def _run(node: Node, driver: Driver, record: ContainerRecord) -> ContainerRecord:
    of = target(node.paths, record)
    config = await asyncio.to_thread(read_config, of.directory, stage="start")
    created = await driver.create(of, config)
    await driver.start(replace(of, process=created.process, monitor=created.monitor))
    return replace(
        record,
        state=next_container_state(record.state, ContainerEvent.STARTED),
        process=created.process,
        monitor=created.monitor,
        started_at=max(node.now(), record.created_at),
    )


def _require_ready(node: Node, record: ContainerRecord) -> None:
    pod = current_pod(node.store, record.pod_id)
    if pod.state is not PodState.READY:
        raise WrongState(f"pod sandbox {pod.id} is {pod.state.value}, its containers cannot be started")


async def _undo(node: Node, driver: Driver, record: ContainerRecord, error: BaseException) -> None:
    """Never raises: the start's own failure is what the caller must hear. What stays STARTING is owed."""
    try:
        if isinstance(error, asyncio.CancelledError):
            await reset(node, record)  # the daemon stops; its next life is asked again
        else:
            await _failed(node, driver, record, error)
    except CrispError as failure:
        log.error("the failed start is not recorded", extra={"container": record.id, "error": str(failure)})


async def _failed(node: Node, driver: Driver, record: ContainerRecord, error: BaseException) -> None:
    of = target(node.paths, record)
    fault = ""
    try:
        await driver.delete(of)
    except CrispError as failure:
        fault = f"runtime: {failure}"
        log.warning("runtime state not removed", extra={"container": record.id, "error": str(failure)})
    message = str(error) if isinstance(error, CrispError) else f"internal error ({type(error).__name__})"
    await node.store.put(
        replace(
            record,
            state=next_container_state(record.state, ContainerEvent.FAILED),
            exit_code=START_FAILED_CODE,
            reason="StartError",
            message=message,
            fault=fault,
            finished_at=max(node.now(), record.created_at),
        )
    )
