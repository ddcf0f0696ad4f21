"""Noticing that containers end, and how: the shim's Wait, and its death.

Events of shims are not relied on. When the shim dies first, what it left is removed by its program's
`delete`, which kills the container too: one that nobody supervises could not be driven any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from oci.errors import CrispError
from oci.workload import ContainerId
from shim.lifecycle.undo import to_the_end
from shim.runtimes.driver import Exit, ExitListener, Target
from shim.runtimes.shimv2.shims import Shim
from shim.runtimes.shimv2.task import Ended
from shim.runtimes.shimv2.ttrpc.client import ConnectionLost

log = logging.getLogger(__name__)

DRAIN: Final = 5.0
"""Seconds for the last output to come into the log after everything in the container is dead."""

OOM_WAIT: Final = 0.5
"""Seconds that a shim's word of a kill for want of memory may come after its word of the end."""


class _Watch:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.heard = asyncio.Event()
        self.told = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class ExitWatch:
    """Tells the listener of every watched container's end, once, on the event loop.

    `find` gives a container's living shim, `clean_up` the end of one whose shim is dead. `settle` is run when
    a container has ended and before the listener hears of it: it brings in what is still to be had of it, and
    answers whether the kernel killed it for want of memory.
    """

    def __init__(
        self,
        *,
        listener: ExitListener,
        find: Callable[[Target], Awaitable[Shim | None]],
        clean_up: Callable[[Target], Awaitable[Ended | None]],
        settle: Callable[[Target, Ended | None], Awaitable[bool]],
    ) -> None:
        self._listener = listener
        self._find = find
        self._clean_up = clean_up
        self._settle = settle
        self._watches: dict[ContainerId, _Watch] = {}

    def watch(self, target: Target, shim: Shim) -> None:
        """Watch a container that the shim has. One already watched stays as it is."""
        if target.id in self._watches:
            return
        watch = self._watches[target.id] = _Watch(target)
        watch.task = asyncio.get_running_loop().create_task(self._follow(watch, shim), name="exit of a task")

    def watches(self, container: ContainerId) -> bool:
        return container in self._watches

    async def ended(self, container: ContainerId, *, timeout: float) -> bool:  # noqa: ASYNC109 - the answer tells
        """Wait until the listener was told of this container's end; True too for one that is not watched."""
        watch = self._watches.get(container)
        return watch is None or await _set(watch.told, timeout)

    async def heard(self, container: ContainerId, *, timeout: float) -> bool:  # noqa: ASYNC109 - the answer tells
        """The same for the shim's own word, or its death: what comes after it is not waited for."""
        watch = self._watches.get(container)
        return watch is None or await _set(watch.heard, timeout)

    def forget(self, container: ContainerId) -> None:
        """Stop watching without telling the listener."""
        watch = self._watches.pop(container, None)
        if watch is not None:
            watch.heard.set()
            watch.told.set()
            if watch.task is not None:
                watch.task.cancel()

    async def close(self) -> None:
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        for container in list(self._watches):
            self.forget(container)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def conclude(self, target: Target, ended: Ended | None) -> Exit:
        """The end of a container whose process is dead, with everything that is still to be had of it."""
        finished = ended.at if ended is not None and ended.at else time.time_ns()
        try:
            oom = await self._settle(target, ended)
        except CrispError as error:
            log.error("an exit is not settled", extra={"container": target.id, "error": str(error)})
            oom = False
        return Exit(code=None if ended is None else ended.code, finished_at=finished, oom_killed=oom)

    async def _follow(self, watch: _Watch, shim: Shim) -> None:
        target = watch.target
        ended, told_by = await self._wait(target, shim)
        watch.heard.set()
        exit_ = await self.conclude(target, ended)
        if ended is not None and told_by is not None and await _tells(told_by, target, ended):
            # The kills for want of memory are in the cgroup alone, which may be gone by then.
            exit_ = replace(exit_, kept=not exit_.oom_killed)
        if self._watches.get(target.id) is not watch:
            return
        del self._watches[target.id]
        try:
            self._listener(target.id, exit_)
        except Exception:
            log.exception("the exit of a container was not taken", extra={"container": target.id})
        finally:
            watch.told.set()

    async def _wait(self, target: Target, shim: Shim) -> tuple[Ended | None, Shim | None]:
        """How it ended, and the shim that said so. Never raises: an exit without a reason is still one."""
        current: Shim | None = shim
        while current is not None:
            try:
                return await current.task.wait(target.id), current
            except ConnectionLost:
                current = await self._again(target)
            except CrispError as error:  # the shim knows no such container any more
                log.warning(
                    "the shim cannot say how it ended", extra={"container": target.id, "error": str(error)}
                )
                break
        log.warning("the shim of a container is gone", extra={"container": target.id})
        try:
            return await to_the_end(self._clean_up(target)), None
        except CrispError as error:
            log.error("what a dead shim left stays", extra={"container": target.id, "error": str(error)})
            return None, None

    async def _again(self, target: Target) -> Shim | None:
        try:
            return await self._find(target)
        except CrispError as error:
            log.warning("a shim is not reached again", extra={"container": target.id, "error": str(error)})
            return None


async def _set(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def exit_of(ended: Ended | None) -> Exit | None:
    """What the shim said of an end, without what only the cgroup knows."""
    return None if ended is None else Exit(code=ended.code, finished_at=ended.at)


async def _tells(shim: Shim, target: Target, ended: Ended) -> bool:
    """Whether the shim answers the same when asked as the next life will ask it."""
    try:
        return ended.at > 0 and (await shim.task.state(target.id)).ended == ended
    except CrispError:
        return False
