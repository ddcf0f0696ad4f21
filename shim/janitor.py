"""What is owed is paid: clean-ups that failed are tried again, with growing pauses, until they succeed.

The debts stand in the records, so they outlive the daemon. Nothing is polled while nobody owes anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from oci.errors import CrispError
from shim.containers import remove as container_remove
from shim.containers.exits import Exits
from shim.containers.stop import Stops
from shim.node import Node
from shim.pods import stop as pod_stop
from shim.records import ContainerRecord, ContainerState, PodRecord, PodState
from shim.state.store import Change

log = logging.getLogger(__name__)

FIRST_PAUSE = 2.0  # seconds
LONGEST_PAUSE = 300.0

Work = Callable[[], Awaitable[None]]


class Janitor:
    """One background task; `start` it after recovery, `close` it first at shutdown."""

    def __init__(self, node: Node, exits: Exits, stops: Stops) -> None:
        self._node = node
        self._exits = exits
        self._stops = stops
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        node.store.subscribe(self._changed)

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
        if isinstance(change.after, PodRecord | ContainerRecord) and owes(change.after):
            self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            pause = FIRST_PAUSE
            # Whoever failed just now deserves a moment before the next try.
            await asyncio.sleep(pause)
            while await self._pay():
                pause = min(pause * 2, LONGEST_PAUSE)
                await asyncio.sleep(pause)
            self._wake.clear()

    async def _pay(self) -> bool:
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
        node, exits, stops = self._node, self._exits, self._stops
        found: list[tuple[str, Work]] = []
        for container in node.store.containers.values():
            if owes(container):
                found.append(
                    (container.id, partial(container_remove.remove, node, exits, stops, container.id))
                )
        for pod in node.store.pods.values():
            if owes(pod):
                verb = pod_stop.remove if pod.state is PodState.REMOVING else pod_stop.stop
                found.append((pod.id, partial(verb, node, exits, stops, pod.id)))
        return found


def owes(record: PodRecord | ContainerRecord) -> bool:
    """Whether a clean-up of this object was begun and failed, or was interrupted: then `fault` says why."""
    if isinstance(record, ContainerRecord):
        return record.state is ContainerState.REMOVING and bool(record.fault)
    return record.state is not PodState.READY and bool(record.fault)
