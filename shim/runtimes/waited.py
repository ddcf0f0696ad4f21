"""The driver of sandboxes that show one process for all containers of a pod, and tell ends only by `wait`.

conmon is kept for what it does well: the log, attach, the exit file, living on without the daemon. What it
watches is a process of ours, `wait`: a small shell program that runs the runtime's `create` as conmon wants
it, leaves the runtime's `wait` behind under conmon, and puts that process's number into the pid file. It ends
with the container's status, so conmon records the right one also while no daemon is there. The price is that
process for each container (the runtime's own, and a shell). A signal must go through the runtime's `kill`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import signal
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from oci import commandline
from oci.commandline import RuntimeState
from oci.errors import Absent, CrispError, Deadline, Internal, Unsupported, WrongState
from oci.monitor import Monitor, parse_pid
from oci.workload import ContainerId, PodId
from shim import process
from shim.files import write_atomic
from shim.kernel import mount
from shim.lifecycle.undo import to_the_end
from shim.network.dial import dial
from shim.records import ProcessRef
from shim.runtimes.conmon import MonitorFiles
from shim.runtimes.driver import Target
from shim.runtimes.oci import OciDriver
from shim.runtimes.table import Handler
from shim.runtimes.verbs import take_log

log = logging.getLogger(__name__)

_PROGRAM: Final = "runtime"
_DIAL_TIME: Final = 10.0

_SCRIPT: Final = """\
#!/bin/sh
# Written by crispd for conmon: creates the container, leaves what waits for its end, says who that is.
{runtime} "$@" || exit $?
(
    while :; do
        status=$({runtime} wait {id} 2>/dev/null | sed -n 's/.*"exitStatus":\\([0-9][0-9]*\\).*/\\1/p')
        [ -z "$status" ] || exit "$status"
        # Nothing waits for what is gone, or stopped without a word: the sandbox was killed.
        {runtime} state {id} 2>/dev/null | grep -q '"status": *"stopped"' && exit 137
        {runtime} state {id} >/dev/null 2>&1 || exit 137
        sleep 1
    done
) </dev/null >/dev/null 2>&1 &
printf %s "$!" >{pid_file}.new && mv {pid_file}.new {pid_file}
"""


def script(runtime: commandline.Runtime, words: Path, container: str, pid_file: Path) -> str:
    """The program that conmon takes for the runtime; `words` is the log of create. Pure."""
    call = shlex.join([str(runtime.program), *commandline.global_arguments(runtime, words)])
    return _SCRIPT.format(runtime=call, id=shlex.quote(container), pid_file=shlex.quote(str(pid_file)))


class WaitedDriver(OciDriver):
    """See `shim.runtimes.driver.Driver`; the arguments are `OciDriver`'s."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        super().__init__(handler, **options)
        self._forwards: set[asyncio.Task[None]] = set()
        self._launches.inner_ended = self._kill_inner

    async def kill(self, target: Target, signal: int, *, everything: bool = False) -> None:
        """By the runtime; with SIGKILL to everything it returns when the end is recorded."""
        await self._open()
        with contextlib.suppress(Absent, WrongState):
            await self._verbs.kill(target.id, signal, everything=everything)
        if everything and signal == 9:
            await self._gone(target)

    async def dial(self, pod: PodId, network: str, port: int) -> socket.socket:
        """By the runtime's `port-forward`, where the sandbox has a network of its own."""
        if not network:
            return await dial(network, port)
        if not self._handler.quirks.port_forward:
            raise Unsupported(
                f"handler {self.handler}: ports of its sandboxes cannot be reached: {self.version} of"
                f" {self._handler.version.name} has no port-forward"
            )
        return await self._forward(pod, port)

    async def close(self) -> None:
        """Connections of port forwards end with the daemon."""
        await super().close()
        for forward in self._forwards:
            forward.cancel()
        await asyncio.gather(*self._forwards, return_exceptions=True)
        await asyncio.to_thread(self._tidy)

    # ---- the parts

    def _prepare(
        self, target: Target, paths: MonitorFiles, spec: Mapping[str, Any], runtime_log: Path
    ) -> None:
        super()._prepare(target, paths, spec, runtime_log)
        program = target.directory / _PROGRAM
        text = script(self._runtime, runtime_log, target.id, paths.container_pid)
        try:
            write_atomic(program, text.encode())
            program.chmod(0o700)
        except OSError as error:
            raise Internal(f"bundle of container {target.id}: {program}: {error.strerror}") from error

    def _monitor(self, target: Target, paths: MonitorFiles, runtime_log: Path) -> Monitor:
        monitor = super()._monitor(target, paths, runtime_log)
        return replace(monitor, runtime=target.directory / _PROGRAM, runtime_arguments=())

    def _living(self, target: Target, state: RuntimeState) -> ProcessRef | None:
        """What waits for the container; the runtime's pid is the sandbox's."""
        return target.process or self._waiter(target)

    def _waiter(self, target: Target) -> ProcessRef | None:
        """What the pid file names, if it still is our program. Blocking, for as long as reading two files."""
        program = target.directory / _PROGRAM
        try:
            pid = parse_pid(self._files(target).container_pid.read_bytes())
            if pid is None or os.fsencode(program) not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return None
            return process.reference(pid)
        except (OSError, Absent):
            return None

    async def _kill_rest(self, target: Target) -> None:
        with contextlib.suppress(CrispError):  # what it cannot kill its delete, or the cgroup, does
            await self._verbs.kill(target.id, signal.SIGKILL, everything=True)
            await self._gone(target)
        await super()._kill_rest(replace(target, process=target.process or self._waiter(target)))

    async def _gone(self, target: Target) -> None:
        waiter = target.process or self._waiter(target)
        if waiter is not None and not await process.wait_gone(waiter, self._kill_time):
            raise Internal(
                f"handler {self.handler}: container {target.id} did not end within {self._kill_time:g} s of"
                " SIGKILL"
            )

    async def _kill_inner(self, target: Target, pid: int) -> None:
        """Kill what an exec started inside the sandbox, whose process outside is dead. Never raises."""
        try:
            await self._verbs.kill_process(target.id, pid)
        except (Absent, WrongState):
            return
        except CrispError as error:
            log.warning("exec is not killed", extra={"container": target.id, "error": str(error)})

    async def _forward(self, pod: PodId, port: int) -> socket.socket:
        """The runtime connects one port of the sandbox to a socket of ours."""
        await self._open()
        path = self._run_dir / "execs" / f"f{secrets.token_hex(6)}"
        words = self._verbs.log(ContainerId(pod), "port-forward")
        loop = asyncio.get_running_loop()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        try:
            listener.bind(str(path))
            listener.listen(1)
            argv = commandline.port_forward(self._runtime, words, pod, stream=path, port=port)
            child = await process.spawn(argv)
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            ending = asyncio.ensure_future(child.exited())
            try:
                done, _ = await asyncio.wait(
                    {accepting, ending}, timeout=_DIAL_TIME, return_when=asyncio.FIRST_COMPLETED
                )
            except BaseException:
                accepting.cancel()
                await to_the_end(child.end(grace=0))
                raise
            finally:
                ending.cancel()
            if accepting not in done:
                accepting.cancel()
                await to_the_end(child.end(grace=0))
                if not done:
                    raise Deadline(f"port {port} of pod {pod}: no connection within {_DIAL_TIME:g} s")
                said = await self._blocking(lambda: take_log(words))
                raise Absent(f"port {port} of pod {pod}: {said or 'nothing listens there'}")
            connection, _ = accepting.result()
            reaping = loop.create_task(_reap(child))
            self._forwards.add(reaping)
            reaping.add_done_callback(self._forwards.discard)
            return connection
        finally:
            listener.close()
            path.unlink(missing_ok=True)
            words.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Take away what the runtime leaves mounted in its root when the last container is gone. Blocking."""
        root = self._runtime.root
        left = {root / name for name in self._handler.quirks.root_mounts}
        try:
            if set(root.iterdir()) - left:
                return
            for path in left:
                mount.unmount_all(path)
                path.unlink(missing_ok=True)
        except OSError:
            return


async def _reap(child: process.Child) -> None:
    await child.wait()
