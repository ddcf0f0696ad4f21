"""Removing a container: what its shim, the log process, the kernel and its own directory hold of it.

Goes on where a part fails, so that as little as possible stays. Knows nothing of how a container was made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from oci.errors import Absent, CrispError, Internal
from shim import files
from shim.cgroups import Cgroups
from shim.logger.keeper import LogKeeper
from shim.runtimes.driver import Target
from shim.runtimes.shimv2.exits import ExitWatch
from shim.runtimes.shimv2.families import Family
from shim.runtimes.shimv2.kills import Kills
from shim.runtimes.shimv2.shims import Shim, Shims
from shim.runtimes.shimv2.ttrpc.client import ConnectionLost
from shim.threads import in_executor

T = TypeVar("T")

log = logging.getLogger(__name__)


class Deletions:
    """Of one handler. `fifos` has a directory for each container; `patience` is seconds for an end."""

    def __init__(
        self,
        family: Family,
        *,
        shims: Shims,
        kills: Kills,
        exits: ExitWatch,
        keeper: LogKeeper,
        cgroups: Cgroups,
        fifos: Path,
        patience: float,
        io: Executor,
    ) -> None:
        self._family = family
        self._shims = shims
        self._kills = kills
        self._exits = exits
        self._keeper = keeper
        self._cgroups = cgroups
        self._fifos = fifos
        self._patience = patience
        self._io = io

    async def delete(self, target: Target) -> None:
        """Absent is success; raises the first failure, after everything was tried."""
        failures: list[CrispError] = []

        async def attempt(part: Callable[[Target], Awaitable[T]]) -> T | None:
            try:
                return await part(target)
            except CrispError as error:
                failures.append(error)
                return None

        await attempt(self._kill)
        if not await attempt(self._delete_from_shim):  # the shim's directory is needed for another attempt
            raise failures[0]
        if await attempt(self._shims.release) and not self._family.host_processes:
            for failure in failures:  # with the shim and what its program removed this is over
                log.warning("a shim was ended", extra={"container": target.id, "error": str(failure)})
            failures.clear()
        await attempt(self._remove_rest)
        if failures:
            raise failures[0]

    async def _kill(self, target: Target) -> None:
        """Kill what lives, and let the listener hear of it while the cgroup's counters are still there."""
        if await self._kills.kill_rest(target):
            await self._exits.ended(target.id, timeout=self._patience)
        self._exits.forget(target.id)

    async def _delete_from_shim(self, target: Target) -> bool:
        """What the shim does not delete its program removes once the shim has ended: see `Shims.leave`."""
        shim = await self._shims.find_or_end(target)
        if shim is None:
            await self._shims.clean_up(target)
            return True
        try:
            if await self._end_is_known(target, shim):
                await shim.task.delete(target.id)
            else:
                await self._shims.leave(target)
        except (Absent, ConnectionLost):
            # Where a create was cut off the shim forgets the container, and the runtime may keep a half.
            await self._shims.clean_up(target)
        except CrispError as error:
            log.warning("a shim deletes nothing", extra={"container": target.id, "error": str(error)})
            await self._shims.leave(target)
        return True

    async def _end_is_known(self, target: Target, shim: Shim) -> bool:
        """The kernel may know of the end before the shim does, which deletes nothing that runs.

        False for a shim that does not answer; one that refuses to wait may delete all the same.
        """
        if await self._kills.is_forgotten(target):
            return False
        try:
            async with asyncio.timeout(self._patience):
                await shim.task.wait(target.id)
        except (Absent, ConnectionLost):
            raise
        except TimeoutError:
            log.warning("a shim tells no end", extra={"container": target.id})
            return False
        except CrispError as error:
            log.warning("a shim tells no end", extra={"container": target.id, "error": str(error)})
        return True

    async def _remove_rest(self, target: Target) -> None:
        await self._keeper.remove(target.id)

        def remove() -> None:
            files.remove_tree(self._fifos / target.id)
            for pattern in self._family.leavings:
                for path in target.directory.glob(pattern):
                    files.remove_tree(path)
            if target.cgroup:
                self._cgroups.remove(target.cgroup)

        try:
            await in_executor(self._io, remove)
        except OSError as error:
            raise Internal(f"container {target.id}: removing {error.filename}: {error.strerror}") from error
