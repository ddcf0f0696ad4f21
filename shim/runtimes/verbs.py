"""Running one verb of an OCI runtime and saying what its failure means.

Every call has a log file of its own in the run directory, so that calls at the same time do not mix their
words. Knows no monitor and no exec: those start the runtime in their own ways.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, TypeVar

from oci import commandline
from oci.commandline import Runtime, RuntimeState
from oci.errors import Absent, Deadline, Internal, RuntimeFailed, WrongState
from oci.workload import ContainerId
from shim import process
from shim.facts.reading import text
from shim.files import write_atomic
from shim.kernel import mount
from shim.lifecycle.undo import to_the_end
from shim.process import CommandMissing, CommandTimedOut, Result
from shim.runtimes.driver import Target

T = TypeVar("T")

_ANY_STATUS: Final = range(-128, 256)


def take_log(path: Path) -> str:
    """The last error in a runtime's log, which is removed; "" without one. Blocking."""
    try:
        words = commandline.parse_log(path.read_bytes())
        path.unlink()
    except OSError:
        return ""
    return words


def _remove_torn(state: Path) -> bool:
    """Remove what a killed runc left in a container's state directory; False when there is more. Blocking.

    runc mounts its own program at `runc.XXXXXX` there for a moment at each call, so that containers cannot
    overwrite it; killed in that moment it leaves the mount, over which its own delete stumbles in silence.
    """
    try:
        for path in state.glob("runc.*"):
            mount.unmount_all(path)
            path.unlink(missing_ok=True)
        state.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Verbs:
    """The verbs of one handler's runtime. `timeout` bounds each, in seconds; `logs` exists at the first call.

    Each raises RuntimeFailed, Absent, WrongState or Deadline with handler, verb and the runtime's own words.
    """

    def __init__(self, *, runtime: Runtime, logs: Path, timeout: float, io: Executor) -> None:
        self._runtime = runtime
        self._logs = logs
        self._timeout = timeout
        self._io = io

    def log(self, container: ContainerId, verb: str) -> Path:
        """A log path for one call."""
        return self._logs / f"{container}.{verb}.{secrets.token_hex(6)}"

    async def call(
        self,
        verb: str,
        container: ContainerId,
        compose: Callable[[Runtime, Path, str], list[str]],
        *,
        limit: float | None = None,
    ) -> Result:
        """Run one verb to its end; `limit` in seconds takes the place of the handler's own."""
        runtime_log = self.log(container, verb)
        try:
            result = await process.run(
                compose(self._runtime, runtime_log, container), timeout=limit or self._timeout, ok=_ANY_STATUS
            )
        except CommandMissing as error:
            raise self.missing(verb, container, error) from error
        except CommandTimedOut as error:
            raise Deadline(
                f"handler {self._runtime.handler}: {verb} of container {container}: {error.message}"
            ) from error
        finally:
            words = await to_the_end(self._blocking(lambda: take_log(runtime_log)))
        if result.returncode != 0:
            said = words or commandline.plain_words(result.stderr)
            raise commandline.failure(self._runtime, container, verb, said, status=result.returncode)
        return result

    async def state(self, container: ContainerId) -> RuntimeState:
        """What the runtime knows of a container."""
        result = await self.call("state", container, commandline.state)
        try:
            return commandline.parse_state(result.stdout)
        except ValueError as error:
            raise RuntimeFailed(f"{self._said(container)}: {error}", verb="state") from error

    async def kill(self, container: ContainerId, signal: int, *, everything: bool) -> None:
        """Let the runtime send a signal."""
        await self.call(
            "kill",
            container,
            lambda runtime, log, id_: commandline.kill(runtime, log, id_, signal, everything=everything),
        )

    async def resume(self, container: ContainerId) -> None:
        """Let a paused container run on."""
        await self.call("resume", container, commandline.resume)

    async def kill_group(self, container: ContainerId, leader: int) -> None:
        """Let the runtime kill a process group of a sandbox."""
        await self.call(
            "kill", container, lambda runtime, log, id_: commandline.kill_group(runtime, log, id_, leader)
        )

    async def kill_process(self, container: ContainerId, pid: int) -> None:
        """Let the runtime kill one process of a sandbox."""
        await self.call(
            "kill", container, lambda runtime, log, id_: commandline.kill_process(runtime, log, id_, pid)
        )

    async def update(self, target: Target, resources: Mapping[str, Any]) -> None:
        """Let the runtime change limits: an OCI linux.resources object with the members to change."""
        container, document = target.id, self.log(target.id, "resources")
        try:
            encoded = json.dumps(resources, separators=(",", ":")).encode("ascii")
            await self._blocking(lambda: write_atomic(document, encoded))
            await self.call(
                "update",
                container,
                lambda runtime, words, id_: commandline.update(runtime, words, id_, resources=document),
            )
        except OSError as error:
            raise Internal(f"container {container}: {document}: {error.strerror}") from error
        finally:
            await to_the_end(self._blocking(lambda: document.unlink(missing_ok=True)))

    async def delete(self, container: ContainerId) -> None:
        """Let the runtime forget a container; checked, since a success that did nothing would leak it."""
        left = self._runtime.root / container
        try:
            await self.call("delete", container, commandline.delete)
        except (Absent, WrongState, RuntimeFailed) as error:
            if isinstance(error, Absent) and not await self._blocking(left.exists):
                raise
            await self.call("delete", container, commandline.delete_by_force)
        if await self._blocking(left.exists) and not await self._blocking(lambda: _remove_torn(left)):
            raise RuntimeFailed(
                f"{self._said(container)}: delete reported success, but its state is still in {left}",
                verb="delete",
            )

    async def checkpoint(
        self, container: ContainerId, *, images: Path, work: Path, limit: float | None
    ) -> None:
        """Save the memory of a running container, which runs on; with a failure come CRIU's last words."""
        try:
            await self.call(
                "checkpoint",
                container,
                lambda runtime, log, id_: commandline.checkpoint(runtime, log, id_, images=images, work=work),
                limit=limit,
            )
        except RuntimeFailed as error:
            said = await self._blocking(lambda: commandline.criu_words(text(work / "dump.log") or ""))
            if not said:
                raise
            # CRIU looked, and something of the container or the kernel is beyond it.
            raise WrongState(f"{error.message}; criu: {said}") from error

    def missing(self, verb: str, container: ContainerId, error: CommandMissing) -> RuntimeFailed:
        """The failure of a runtime, or of its monitor, that cannot be executed."""
        return RuntimeFailed(
            f"handler {self._runtime.handler}: {verb} of container {container}: {error.message}", verb=verb
        )

    def _said(self, container: ContainerId) -> str:
        runtime = self._runtime
        return f"handler {runtime.handler}: {runtime.program.name} of container {container}"

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, work)
