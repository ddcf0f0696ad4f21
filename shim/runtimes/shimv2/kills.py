"""Signals that a shim is asked to send, and the end of one that does not kill."""

from __future__ import annotations

import logging
from collections.abc import Callable
from signal import SIGKILL

from oci.errors import Absent, CrispError, WrongState
from shim import process
from shim.runtimes.driver import Target
from shim.runtimes.shimv2.families import Family, Sharing
from shim.runtimes.shimv2.shims import Shims
from shim.runtimes.shimv2.ttrpc.client import ConnectionLost

log = logging.getLogger(__name__)


class Kills:
    """Of one handler. `explain` says of a container, a verb and an error what the shim meant."""

    def __init__(
        self,
        handler: str,
        family: Family,
        *,
        shims: Shims,
        explain: Callable[[str, str, CrispError], CrispError],
    ) -> None:
        self._handler = handler
        self._family = family
        self._shims = shims
        self._explain = explain

    async def by_shim(self, target: Target, number: int, *, everything: bool) -> None:
        """The shim's Kill; what has ended is success. Raises RuntimeFailed, Deadline."""
        shim = await self._shims.find(target)
        if shim is None:
            return
        try:
            await shim.task.kill(target.id, number, everything=everything)
        except ConnectionLost as error:
            if target.monitor is not None and process.alive(target.monitor):
                raise self._explain(target.id, "kill", error) from error
            # it died just now, and its program's delete ends the container
        except CrispError as error:
            meant = self._explain(target.id, "kill", error)
            if not isinstance(meant, Absent | WrongState):
                raise meant from error

    async def with_shim(self, target: Target) -> None:
        """SIGKILL to everything; a shim that does not do it is ended, and its containers with it.

        Its Wait breaks then, and its program's `delete` removes each.
        """
        try:
            await self.by_shim(target, SIGKILL, everything=True)
        except CrispError as error:
            shared = self._family.sharing is Sharing.POD
            log.warning(
                "a shim that does not kill a container is ended, and all containers of its pod with it"
                if shared
                else "a shim that does not kill its container is ended, and the container with it",
                extra={
                    "container": target.id,
                    "pod": target.pod_id,
                    "handler": self._handler,
                    "error": str(error),
                },
            )
            await self._shims.kill(target)
