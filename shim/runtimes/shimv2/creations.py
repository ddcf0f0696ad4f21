"""Create calls, which a shim cannot be told to stop: what one makes after all is removed when it says so.

Without that the container of a call that was given up would be made after its clean-up, and nobody would
know it. Knows nothing of what a container needs before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import Message

from oci.errors import CrispError, Deadline
from oci.workload import ContainerId
from shim.lifecycle.undo import to_the_end
from shim.runtimes.driver import Target
from shim.runtimes.shimv2.shims import Shim
from shim.runtimes.shimv2.task import Stdio

log = logging.getLogger(__name__)


class Creations:
    """The calls of one handler. `timeout` is seconds for an answer, `patience` those that a cancel waits.

    `kept(container)` says whether somebody has the container meanwhile: then it stays.
    """

    def __init__(
        self, handler: str, *, timeout: float, patience: float, kept: Callable[[ContainerId], bool]
    ) -> None:
        self._handler = handler
        self._timeout = timeout
        self._patience = patience
        self._kept = kept
        self._late: set[asyncio.Task[None]] = set()

    async def create(
        self, target: Target, shim: Shim, bundle: Path, stdio: Stdio, options: Message | None
    ) -> int:
        """The container's first process, or its sandbox's. Raises what the shim answers, Deadline."""
        work = shim.task.create(target.id, bundle=str(bundle), stdio=stdio, options=options)
        call = asyncio.get_running_loop().create_task(work, name="create by a shim")
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(call)
        except TimeoutError:
            self._give_up(target, shim, call)
            raise Deadline(
                f"handler {self._handler}: create of container {target.id} was not answered by its shim"
                f" within {self._timeout:g} s"
            ) from None
        except asyncio.CancelledError:
            await to_the_end(asyncio.wait({call}, timeout=self._patience))
            if not call.done():
                self._give_up(target, shim, call)
            elif not call.cancelled():
                call.exception()  # taken: the cancel is the answer
            raise

    async def close(self) -> None:
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)

    def _give_up(self, target: Target, shim: Shim, call: asyncio.Task[int]) -> None:
        made = asyncio.get_running_loop().create_task(
            self._remove_late(target, shim, call), name="a late create"
        )
        self._late.add(made)
        made.add_done_callback(self._late.discard)

    async def _remove_late(self, target: Target, shim: Shim, call: asyncio.Task[int]) -> None:
        try:
            await asyncio.wait({call})
        finally:
            call.cancel()
        if call.cancelled() or call.exception() is not None or self._kept(target.id):
            return
        with contextlib.suppress(CrispError):
            await shim.task.kill(target.id, signal.SIGKILL, everything=True)
            await shim.task.wait(target.id)
            await shim.task.delete(target.id)
            log.warning("a container was made by a call that was given up", extra={"container": target.id})
