"""The end of containers: the driver's event becomes a record, and those who wait for it are told.

One instance a daemon. It also holds what a stop in progress knows, so that a later call can shorten its wait.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from oci.errors import CrispError
from oci.workload import ContainerId, PodId
from shim.containers.lookup import has_process
from shim.containers.target import target
from shim.lifecycle.table import ContainerEvent, PodEvent, next_container_state, next_pod_state
from shim.node import Node
from shim.records import ContainerRecord, PodState
from shim.runtimes.driver import Exit
from shim.state.store import Change

log = logging.getLogger(__name__)

LOST_EXIT_CODE = 255


class Exits:
    """Turns exits into records. `listener` is what drivers are given."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ended: dict[ContainerId, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        node.store.subscribe(self._changed)

    def listener(self, id_: ContainerId, exit_: Exit) -> None:
        """A container's first process ended; called on the event loop by its driver."""
        if id_ in self._node.store.containers:
            work = self._record(id_, exit_)
        elif PodId(id_) in self._node.store.pods:
            work = self._pod_died(PodId(id_))
        else:
            return  # its removal came first
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self, id_: ContainerId) -> None:
        """Return when the container has no process any more, as its record says."""
        record = self._node.store.containers.get(id_)
        if record is None or not has_process(record):
            return
        await self._ended.setdefault(id_, asyncio.Event()).wait()

    async def close(self) -> None:
        """Let the exits that are being recorded reach the store."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _changed(self, change: Change) -> None:
        record = change.after if change.after is not None else change.before
        if not isinstance(record, ContainerRecord):
            return
        if change.after is None or not has_process(record):
            event = self._ended.pop(record.id, None)
            if event is not None:
                event.set()

    async def _record(self, id_: ContainerId, exit_: Exit) -> None:
        try:
            async with self._node.operations.exclusive(("container", id_)):
                record = self._node.store.containers.get(id_)
                if record is not None and has_process(record):
                    await record_exit(self._node, record, exit_)
        except CrispError as error:
            log.error("exit not recorded", extra={"container": id_, "error": str(error)})

    async def _pod_died(self, id_: PodId) -> None:
        try:
            async with self._node.operations.exclusive(("pod", id_)):
                pod = self._node.store.pods.get(id_)
                if pod is not None and pod.state is PodState.READY:
                    log.warning("the pod's first process ended", extra={"pod": id_})
                    await self._node.store.put(replace(pod, state=next_pod_state(pod.state, PodEvent.DIED)))
        except CrispError as error:
            log.error("end of a pod's first process not recorded", extra={"pod": id_, "error": str(error)})


async def record_exit(node: Node, record: ContainerRecord, exit_: Exit) -> ContainerRecord:
    """Make the record EXITED and give back what the runtime holds. The caller holds the container's lock."""
    after = replace(
        exited(record, exit_),
        state=next_container_state(record.state, ContainerEvent.EXIT, name=f"container {record.id}"),
    )
    await node.store.put(after)
    log.info(
        "container ended",
        extra={"container": record.id, "exit_code": after.exit_code, "reason": after.reason},
    )
    try:
        await node.handlers.driver(record.handler).delete(target(node.paths, after))
    except CrispError as error:
        # RemoveContainer does it again and reports it; the exit itself is recorded.
        log.warning("runtime state not removed", extra={"container": record.id, "error": str(error)})
        return after
    after = replace(after, process=None, monitor=None)
    await node.store.put(after)
    return after


def exited(record: ContainerRecord, exit_: Exit) -> ContainerRecord:
    """The record with the end in it, its state unchanged. A lost code is 255 with reason Unknown."""
    code = LOST_EXIT_CODE if exit_.code is None else exit_.code
    if exit_.oom_killed:
        reason = "OOMKilled"
    elif exit_.code is None:
        reason = "Unknown"
    else:
        reason = "Completed" if code == 0 else "Error"
    # A clock that was set back must not let a container end before it began.
    finished = max(exit_.finished_at, record.started_at, record.created_at)
    return replace(record, exit_code=code, finished_at=finished, reason=reason)
