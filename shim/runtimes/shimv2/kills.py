"""Signals to a container, by the kernel where the node sees its processes, else by its shim; and the end of a
shim that does not kill, or does not notice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from signal import SIGKILL

from oci.errors import Absent, CrispError, Deadline, Internal, WrongState
from shim import process
from shim.cgroups import Cgroups
from shim.runtimes.driver import Target
from shim.runtimes.shimv2.exits import ExitWatch
from shim.runtimes.shimv2.families import Family, Sharing
from shim.runtimes.shimv2.shims import Shims
from shim.runtimes.shimv2.task import CREATED
from shim.runtimes.shimv2.ttrpc.client import ConnectionLost

log = logging.getLogger(__name__)


class Kills:
    """Of one handler. `explain` says of a container, a verb and an error what the shim meant.

    `patience` is seconds that processes may take to be gone after SIGKILL, and their shim to say so.
    """

    def __init__(
        self,
        handler: str,
        family: Family,
        *,
        shims: Shims,
        exits: ExitWatch,
        cgroups: Cgroups,
        patience: float,
        explain: Callable[[str, str, CrispError], CrispError],
    ) -> None:
        self._handler = handler
        self._family = family
        self._shims = shims
        self._exits = exits
        self._cgroups = cgroups
        self._patience = patience
        self._explain = explain

    async def kill(self, target: Target, number: int, *, everything: bool) -> None:
        """Where the node sees the processes no shim is asked; Internal names those that do not go.

        A shim that refuses SIGKILL to everything, does not answer it, or answers nothing any more after it,
        is ended with all that it serves. Of another signal the failure is raised: RuntimeFailed, Deadline.
        """
        if self._family.host_processes and everything and target.cgroup:
            await self._kill_cgroup(target, number)
            if number == SIGKILL and not await self._notices(target):
                raise Deadline(
                    f"handler {self._handler}: the shim of container {target.id} does not tell of its end"
                    f" within {self._patience:g} s"
                )
        elif self._family.host_processes and not everything and target.process is not None:
            process.signal(target.process, number)
        elif everything and number == SIGKILL:
            try:
                await self._ask(target, number, everything=True)
            except CrispError as error:
                await self._end_shim(target, str(error))
        else:
            await self._ask(target, number, everything=everything)

    async def kill_rest(self, target: Target) -> bool:
        """SIGKILL before a container is removed; False where the shim is known not to tell of its end.

        A shim that does not kill is left to who removes it.
        """
        if not self._family.host_processes:
            if await self.is_forgotten(target):
                return False
            await self._ask(target, SIGKILL, everything=True)
        elif target.cgroup:
            await self._kill_cgroup(target, SIGKILL)
            return await self._notices(target)
        elif target.process is not None and process.signal(target.process, SIGKILL):
            await process.wait_gone(target.process, self._patience)
        return True

    async def is_forgotten(self, target: Target) -> bool:
        """Whether only the shim's own end removes the container: it was never started, and shims differ."""
        if not self._family.forgets_unstarted:
            return False
        shim = await self._shims.find_or_end(target)
        if shim is None:
            return False
        try:
            return (await shim.task.state(target.id)).status == CREATED
        except CrispError:
            return False

    async def _kill_cgroup(self, target: Target, number: int) -> None:
        left = await self._cgroups.kill_everything(
            target.cgroup, timeout=self._patience, number=number, first=target.process
        )
        if left:
            raise Internal(
                f"container {target.id}: processes {', '.join(map(str, left))} of cgroup {target.cgroup} "
                f"did not end within {self._patience:g} s of SIGKILL; they hang in the kernel"
            )

    async def _notices(self, target: Target) -> bool:
        """Whether the shim tells of an end that the kernel has seen, in time.

        One that answers nothing any more is ended; one that answers is only slow, and may serve others.
        """
        if await self._exits.heard(target.id, timeout=self._patience):
            return True
        if await self._shims.answers(target):
            return False
        await self._end_shim(
            target, f"it says nothing within {self._patience:g} s of SIGKILL, and not when asked"
        )
        return True

    async def _ask(self, target: Target, number: int, *, everything: bool) -> None:
        """The shim's Kill; what has ended is success."""
        find = self._shims.find_or_end if number == SIGKILL and everything else self._shims.find
        shim = await find(target)
        if shim is None:
            return
        try:
            async with asyncio.timeout(self._patience if number == SIGKILL else None):
                await shim.task.kill(target.id, number, everything=everything)
        except TimeoutError:
            raise Deadline(
                f"handler {self._handler}: SIGKILL for container {target.id} was not answered by its shim"
                f" within {self._patience:g} s"
            ) from None
        except ConnectionLost as error:
            if target.monitor is not None and process.alive(target.monitor):
                raise self._explain(target.id, "kill", error) from error
            # it died just now, and its program's delete ends the container
        except CrispError as error:
            meant = self._explain(target.id, "kill", error)
            if not isinstance(meant, Absent | WrongState):
                raise meant from error

    async def _end_shim(self, target: Target, error: str) -> None:
        """Its Wait breaks then, and its program's `delete` removes each container that it served."""
        log.warning(
            "a shim that does not end a container is ended, and all containers of its pod with it"
            if self._family.sharing is Sharing.POD
            else "a shim that does not end its container is ended, and the container with it",
            extra={
                "container": target.id,
                "pod": target.pod_id,
                "handler": self._handler,
                "error": error,
            },
        )
        await self._shims.kill(target)
