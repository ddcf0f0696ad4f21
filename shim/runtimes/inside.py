"""The driver of runtimes whose containers are not processes of this machine: sandboxes and virtual machines.

What the pid file names is outside, stands for the container and ends with it. A signal to it would not reach
the container, or take the one away and leave the other, so signals go through the runtime's `kill`.
"""

from __future__ import annotations

import contextlib
import logging
import signal as signals
from dataclasses import replace

from oci.commandline import Phase
from oci.errors import Absent, CrispError, Internal, RuntimeFailed, WrongState
from shim import process
from shim.records import ProcessRef
from shim.runtimes import processtree
from shim.runtimes.driver import Target
from shim.runtimes.oci import OciDriver

log = logging.getLogger(__name__)


class InsideDriver(OciDriver):
    """See `shim.runtimes.driver.Driver`."""

    async def kill(self, target: Target, signal: int, *, everything: bool = False) -> None:
        """By the runtime; with SIGKILL to everything it returns when the end is seen outside.

        How runtimes refuse to signal what has ended differs: what stands for it outside tells. That is killed
        where the runtime does not kill everything.
        """
        await self._open()
        final = everything and signal == signals.SIGKILL
        try:
            if final:
                await self._end_all(target)
            else:
                await self._verbs.kill(target.id, signal, everything=everything)
        except (Absent, WrongState):
            pass
        except CrispError as error:
            outside = self._outside(target)
            lives = outside is not None and process.alive(outside)
            if outside is None or (not final and (lives or not isinstance(error, RuntimeFailed))):
                raise
            if lives:
                log.warning(
                    "a runtime does not kill its container: what stands for it outside is killed",
                    extra={"container": target.id, "handler": self.handler, "error": str(error)},
                )
                await self._kill_outside(outside)
        if final:
            await self._gone(target)

    # ---- the parts

    def _outside(self, target: Target) -> ProcessRef | None:
        """The process that stands for the container."""
        return target.process

    async def _end_all(self, target: Target) -> None:
        """SIGKILL to all; one that somebody paused takes no signals, and runs on first."""
        try:
            await self._verbs.kill(target.id, signals.SIGKILL, everything=True)
            await self._gone(target)
        except CrispError:
            if (await self._verbs.state(target.id)).phase is not Phase.PAUSED:
                raise
            log.warning("a paused container is resumed, to end it", extra={"container": target.id})
            await self._verbs.resume(target.id)
            with contextlib.suppress(WrongState):  # what was sent before has reached it now
                await self._verbs.kill(target.id, signals.SIGKILL, everything=True)
            await self._gone(target)

    async def _gone(self, target: Target) -> None:
        outside = self._outside(target)
        if outside is not None and not await process.wait_gone(outside, self._kill_time):
            raise Internal(
                f"handler {self.handler}: container {target.id} did not end within {self._kill_time:g} s of"
                " SIGKILL"
            )

    async def _kill_rest(self, target: Target) -> None:
        with contextlib.suppress(CrispError):  # what it cannot kill its delete, or the cgroup, does
            await self._end_all(target)
        outside = self._outside(target)
        if outside is not None and process.alive(outside):
            await self._kill_outside(outside)
        await super()._kill_rest(replace(target, process=outside))

    async def _kill_outside(self, outside: ProcessRef) -> None:
        """With calls of the runtime in it that hang."""

        def family() -> list[ProcessRef]:
            table = processtree.read_table()
            return [table[pid].reference for pid in processtree.members(table, {outside.pid}, 0)]

        await processtree.kill_all(family, io=self._io, timeout=self._kill_time)
