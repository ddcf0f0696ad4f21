"""Work that outlives its caller: the daemon's own tasks, joined by retries, waited for behind a shield.

A mutation of a pod or container runs here. Its caller may vanish; the work goes on to a whole object or to
nothing. A second request with the same key and an equal request joins; one with another request is refused
while the first runs. Waits for one object are serialised with `exclusive`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from oci.errors import Busy, Duplicate
from shim.lifecycle.locks import Locks

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Running:
    request: Any
    task: asyncio.Task[Any]


class Operations:
    """The tasks of one daemon, by key. Use `close` at shutdown."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _Running] = {}
        self._locks = Locks()
        self._closing = False
        self._listeners: list[Callable[[], None]] = []

    def on_failure(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever an operation ended without its result: it may have left something owed."""
        self._listeners.append(listener)

    async def join(self, key: Hashable, request: object, work: Callable[[], Awaitable[T]]) -> T:
        """Start `work` under `key`, or wait for the equal request that runs already.

        Raises Duplicate when another request holds the key, Busy when the daemon is stopping. A cancelled
        caller leaves the work running.
        """
        running = self._running.get(key)
        if running is None:
            if self._closing:
                raise Busy("the daemon is stopping, try again when it is back")
            task = asyncio.ensure_future(work())
            running = _Running(request, cast("asyncio.Task[Any]", task))
            self._running[key] = running
            running.task.add_done_callback(lambda done: self._finished(key, done))
        elif running.request != request:
            raise Duplicate(f"another request for {key} is under way and differs from this one")
        result: T = await asyncio.shield(running.task)
        return result

    def _finished(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._running[key]
        # Retrieved here so that work whose callers are all gone does not warn of an unseen exception.
        if task.cancelled():
            return
        if task.exception() is not None:
            log.debug("operation failed", extra={"key": str(key), "error": str(task.exception())})
            for listener in self._listeners:
                listener()

    def exclusive(self, key: Hashable) -> AbstractAsyncContextManager[None]:
        """Hold the one lock of an object; others wait in order."""
        return self._locks.exclusive(key)

    def held(self, key: Hashable) -> bool:
        """Whether some operation holds, or waits for, that object."""
        return self._locks.held(key)

    @property
    def busy(self) -> int:
        """How many operations run."""
        return len(self._running)

    async def close(self, *, grace: float) -> None:
        """Take nothing new, let what runs finish for `grace` seconds, then cancel it and await its undo."""
        self._closing = True
        tasks = [running.task for running in self._running.values()]
        if not tasks:
            return
        _, pending = await asyncio.wait(tasks, timeout=grace)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
