"""The end of containers: the driver's event becomes a record, and those who wait for it are told.

One instance a daemon. An end that could not be recorded, on a full disk say, is kept here and recorded later:
nobody tells of it twice. One that the next life would find again is announced before it is on the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from oci.errors import CrispError
from oci.workload import ContainerId, PodId
from shim.containers.lookup import has_process
from shim.containers.target import target
from shim.lifecycle.table import ContainerEvent, PodEvent, next_container_state, next_pod_state
from shim.node import Node
from shim.records import ContainerRecord, ContainerState, PodState
from shim.runtimes.driver import Exit
from shim.state.store import Change

log = logging.getLogger(__name__)

LOST_EXIT_CODE = 255

Work = Callable[[], Awaitable[None]]


class Exits:
    """Turns exits into records. `listener` is what drivers are given."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ended: dict[ContainerId, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed: dict[str, tuple[Work, CrispError]] = {}
        self._unsaved: set[str] = set()  # their ends can be seen already
        self._listeners: list[Callable[[], None]] = []
        self._closed = False
        node.store.subscribe(self._changed)

    def on_failure(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever an end could not be recorded."""
        self._listeners.append(listener)

    def listener(self, id_: ContainerId, exit_: Exit) -> None:
        """A container's first process ended; called on the event loop by its driver."""
        if self._closed:
            return  # the next life finds it
        if id_ in self._node.store.containers:
            work = partial(self._record, id_, exit_)
        elif PodId(id_) in self._node.store.pods:
            work = partial(self._pod_died, PodId(id_))
        else:
            return  # its removal came first
        task = asyncio.ensure_future(self._try(id_, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self, id_: ContainerId) -> None:
        """Return when the container has no process any more, as its record says, on the disk too.

        Raises why its end could not be recorded.
        """
        while (record := self._node.store.containers.get(id_)) is not None and (
            has_process(record) or id_ in self._unsaved
        ):
            if id_ in self._owed:
                raise self._owed[id_][1]
            await self._ended.setdefault(id_, asyncio.Event()).wait()

    def owed(self) -> list[str]:
        """The ids of containers and pods whose ends are not recorded yet."""
        return list(self._owed)

    async def settle(self, id_: str) -> None:
        """Record the end of that object if it is owed. Raises why it still cannot be recorded."""
        if id_ in self._owed:
            work, _ = self._owed.pop(id_)
            await self._try(id_, work)
            if id_ in self._owed:
                raise self._owed[id_][1]

    async def close(self) -> None:
        """Take no more, and let those that are being recorded reach the store. Before the drivers close."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _changed(self, change: Change) -> None:
        record = change.after if change.after is not None else change.before
        if not isinstance(record, ContainerRecord):
            return
        if not change.durable:
            self._unsaved.add(record.id)
        elif change.after is None or not has_process(record):
            self._saved(record.id)

    def _saved(self, id_: str) -> None:
        self._unsaved.discard(id_)
        self._owed.pop(id_, None)
        self._tell(id_)

    def _tell(self, id_: str) -> None:
        event = self._ended.pop(ContainerId(id_), None)
        if event is not None:
            event.set()

    async def _try(self, id_: str, work: Work) -> None:
        try:
            await work()
        except CrispError as error:
            log.error("the end of a process is not recorded", extra={"id": id_, "error": str(error)})
            self._owed[id_] = work, error
            self._tell(id_)
            for listener in self._listeners:
                listener()

    async def _record(self, id_: ContainerId, exit_: Exit) -> None:
        async with self._node.operations.exclusive(("container", id_)):
            record = self._node.store.containers.get(id_)
            if record is None:
                return
            if has_process(record):
                record = _ended(record, exit_)
            elif id_ not in self._unsaved:
                return
            await self._node.store.put(record, proven=exit_.kept)
            self._saved(id_)
            if record.state is ContainerState.EXITED:
                await _give_back(self._node, record)

    async def _pod_died(self, id_: PodId) -> None:
        async with self._node.operations.exclusive(("pod", id_)):
            pod = self._node.store.pods.get(id_)
            if pod is not None and pod.state is PodState.READY:
                log.warning("the pod's first process ended", extra={"pod": id_})
                await self._node.store.put(replace(pod, state=next_pod_state(pod.state, PodEvent.DIED)))


async def record_exit(node: Node, record: ContainerRecord, exit_: Exit) -> ContainerRecord:
    """Make the record EXITED and give back what the runtime holds. The caller holds the container's lock."""
    after = _ended(record, exit_)
    await node.store.put(after)
    return await _give_back(node, after)


def _ended(record: ContainerRecord, exit_: Exit) -> ContainerRecord:
    if record.state is ContainerState.STARTING and record.started_at == 0:
        # It ran, and a life of the daemon that is over would have said since when.
        record = replace(record, started_at=record.created_at)
    state = next_container_state(record.state, ContainerEvent.EXIT, name=f"container {record.id}")
    return replace(exited(record, exit_), state=state)


async def _give_back(node: Node, record: ContainerRecord) -> ContainerRecord:
    """Only once the end is on the disk: until then the runtime's files are what tells of it."""
    log.info(
        "container ended",
        extra={"container": record.id, "exit_code": record.exit_code, "reason": record.reason},
    )
    try:
        return await release_runtime(node, record)
    except CrispError as error:
        # The exit itself is recorded; the janitor, or RemoveContainer, does the rest.
        log.warning("runtime state not removed", extra={"container": record.id, "error": str(error)})
        after = replace(record, fault=f"runtime: {error}")
        await node.store.put(after)
        return after


async def release_runtime(node: Node, record: ContainerRecord) -> ContainerRecord:
    """Give back what the runtime holds of an EXITED container, and keep in its record that it was done."""
    await node.driver_of(record).delete(target(node.paths, record))
    after = replace(record, process=None, monitor=None, fault="")
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
