"""What is owed is paid: clean-ups that failed are tried again, with growing pauses, until they succeed.

The debts stand in the records, so they outlive the daemon: an object in a state that only an operation may
leave, with no operation at work on it, or one whose `fault` says what is left. Nothing is polled while nobody
owes anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from oci.errors import CrispError
from oci.workload import ContainerId, PodId
from shim.containers import remove as container_remove
from shim.containers.exits import Exits, release_runtime
from shim.containers.start import reset
from shim.containers.stop import Stops
from shim.node import Node
from shim.pods import stop as pod_stop
from shim.records import ContainerRecord, ContainerState, PodRecord, PodState
from shim.state.store import Change

log = logging.getLogger(__name__)

FIRST_PAUSE = 2.0  # seconds
LONGEST_PAUSE = 300.0

Work = Callable[[], Awaitable[None]]

_PASSING_PODS = (PodState.CREATING, PodState.STOPPING, PodState.REMOVING)
_PASSING_CONTAINERS = (ContainerState.CREATING, ContainerState.STARTING, ContainerState.REMOVING)


class Janitor:
    """One background task; `start` it after recovery, `close` it first at shutdown."""

    def __init__(self, node: Node, exits: Exits, stops: Stops) -> None:
        self._node = node
        self._exits = exits
        self._stops = stops
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        node.store.subscribe(self._changed)
        node.operations.on_failure(self._wake.set)
        exits.on_failure(self._wake.set)

    def start(self) -> None:
        """Begin, with what the records owe already."""
        self._wake.set()
        self._task = asyncio.create_task(self._run(), name="janitor")

    async def close(self) -> None:
        """Stop trying; the debts stay recorded."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})

    def _changed(self, change: Change) -> None:
        if isinstance(change.after, PodRecord | ContainerRecord) and change.after.fault:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            pause = FIRST_PAUSE
            # Whoever failed just now deserves a moment before the next try.
            await asyncio.sleep(pause)
            while await self.pay():
                pause = min(pause * 2, LONGEST_PAUSE)
                await asyncio.sleep(pause)

    async def pay(self) -> bool:
        """Try every debt once; whether some remain."""
        debts = self._debts()
        for name, work in debts:
            try:
                await work()
                log.info("an owed clean-up is done", extra={"of": name})
            except CrispError as error:
                log.warning("an owed clean-up failed again", extra={"of": name, "error": str(error)})
        return bool(self._debts())

    def _debts(self) -> list[tuple[str, Work]]:
        node, exits = self._node, self._exits
        found: list[tuple[str, Work]] = [(id_, partial(exits.settle, id_)) for id_ in exits.owed()]
        for container in node.store.containers.values():
            if owes(container) and not node.operations.held(("container", container.id)):
                found.append((container.id, self._work_on_container(container)))
        for pod in node.store.pods.values():
            if owes(pod) and not node.operations.held(("pod", pod.id)):
                found.append((pod.id, partial(self._settle_pod, pod.id)))
        return found

    def _work_on_container(self, record: ContainerRecord) -> Work:
        if record.state in (ContainerState.EXITED, ContainerState.STARTING):
            return partial(self._settle_container, record.id)
        return partial(container_remove.remove, self._node, self._exits, self._stops, record.id)

    async def _settle_container(self, id_: ContainerId) -> None:
        node = self._node
        async with node.operations.exclusive(("container", id_)):
            record = node.store.containers.get(id_)
            if record is None or not owes(record):
                return
            if record.state is ContainerState.EXITED:
                await release_runtime(node, record)
            elif record.state is ContainerState.STARTING:
                await reset(node, record)

    async def _settle_pod(self, id_: PodId) -> None:
        node, exits, stops = self._node, self._exits, self._stops
        record = node.store.pods.get(id_)
        if record is None or not owes(record):
            return
        if record.state in (PodState.CREATING, PodState.REMOVING):
            await pod_stop.remove(node, exits, stops, id_)
        else:
            await pod_stop.stop(node, exits, stops, id_)


def owes(record: PodRecord | ContainerRecord) -> bool:
    """Whether a clean-up of this object is due, unless an operation is at work on it."""
    if isinstance(record, ContainerRecord):
        passing = record.state in _PASSING_CONTAINERS
        return passing or (record.state is ContainerState.EXITED and bool(record.fault))
    return record.state in _PASSING_PODS or (record.state is not PodState.READY and bool(record.fault))
