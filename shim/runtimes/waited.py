"""The driver of sandboxes that show one process for all containers of a pod, and tell ends only by `wait`.

conmon is kept for what it does well: the log, attach, the exit file, living on without the daemon. What it
watches is a process of ours: a small shell program that runs the runtime's `create` as conmon wants it, and
leaves a part of itself behind under conmon, whose number it puts into the pid file. That part starts the
container when the daemon says so, since the runtime takes the streams of a container from whoever calls
`start`, then lets the streams go and waits. It ends with the container's status, so conmon records the right
one also while no daemon is there. The price is that shell and the runtime's `wait` for each container. A
signal must go through the runtime's `kill`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from oci import commandline
from oci.commandline import RuntimeState
from oci.errors import Absent, CrispError, Deadline, Internal, RuntimeFailed, Unsupported, WrongState
from oci.monitor import Monitor, parse_pid
from oci.workload import PodId
from shim import process
from shim.files import write_atomic
from shim.lifecycle.undo import to_the_end
from shim.network.dial import dial
from shim.records import ProcessRef
from shim.runtimes.conmon import MonitorFiles
from shim.runtimes.driver import Target
from shim.runtimes.inside import InsideDriver
from shim.runtimes.sandboxes import Forwards, tidy
from shim.runtimes.table import Handler
from shim.runtimes.verbs import take_log

log = logging.getLogger(__name__)

_PROGRAM: Final = "runtime"
_GO: Final = "go"

_SCRIPT: Final = """\
#!/bin/sh
# Written by crispd for conmon: creates the container, leaves behind what starts it and waits for its end.
{runtime} "$@" || exit $?
exec 5<&0
(
    read -r words answer <{go} || exit 137
    rm -f {go}
    {program} --log="$words" start {id}
    printf %s "$?" >"$answer.new" && mv "$answer.new" "$answer"
    exec </dev/null >/dev/null 2>&1 5<&-
    while :; do
        status=$({silent} wait {id} | sed -n 's/.*"exitStatus":\\([0-9][0-9]*\\).*/\\1/p')
        [ -z "$status" ] || exit "$status"
        # Nothing waits for what is gone, or stopped without a word: the sandbox was killed.
        {silent} state {id} | grep -q '"status": *"stopped"' && exit 137
        {silent} state {id} || exit 137
        sleep 1
    done
) <&5 5<&- &
printf %s "$!" >{pid_file}.new && mv {pid_file}.new {pid_file}
"""


def script(runtime: commandline.Runtime, words: Path, container: str, pid_file: Path, go: Path) -> str:
    """The program that conmon takes for the runtime; `words` is the log of create, `go` the fifo. Pure."""
    quoted = {"id": container, "pid_file": str(pid_file), "go": str(go)}
    with_log = commandline.global_arguments(runtime, words)
    without = [argument for argument in with_log if not argument.startswith("--log=")]
    return _SCRIPT.format(
        runtime=shlex.join([str(runtime.program), *with_log]),
        program=shlex.join([str(runtime.program), *without]),
        silent=shlex.join([str(runtime.program), *without, "--log=/dev/null"]),
        **{name: shlex.quote(value) for name, value in quoted.items()},
    )


class WaitedDriver(InsideDriver):
    """See `shim.runtimes.driver.Driver`; the arguments are `OciDriver`'s."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        super().__init__(handler, **options)
        self._forwards = Forwards(self._runtime, directory=self._run_dir / "execs", io=self._io)
        self._answers: dict[str, asyncio.Event] = {}
        self._launches.inner_ended = self._kill_inner

    async def start(self, target: Target) -> None:
        """By the program under conmon; raises what the runtime said, WrongState when it is started."""
        await self._open()
        outside = await self._blocking(lambda: self._outside(target))
        if outside is None or not process.alive(outside):
            raise WrongState(f"handler {self.handler}: container {target.id} has ended, it cannot be started")
        words = self._verbs.log(target.id, "start")
        answer = self._run_dir / "execs" / f"s{target.id}.{secrets.token_hex(6)}"
        answered = self._answers[answer.name] = asyncio.Event()
        try:
            # Held open until the answer is there: what is written to a fifo that nobody has open is lost.
            go = os.open(target.directory / _GO, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(go, f"{words} {answer}\n".encode())
                async with asyncio.timeout(self._timeout):
                    await answered.wait()
            finally:
                os.close(go)
            status = int(answer.read_bytes() or b"255")
        except TimeoutError:
            raise Deadline(
                f"handler {self.handler}: start of container {target.id} did not end within"
                f" {self._timeout:g} s"
            ) from None
        except FileNotFoundError:
            raise WrongState(f"handler {self.handler}: container {target.id} is started already") from None
        except OSError as error:
            raise Internal(f"start of container {target.id}: {error.filename}: {error.strerror}") from error
        finally:
            del self._answers[answer.name]
            said = await to_the_end(self._blocking(lambda: take_log(words)))
            answer.unlink(missing_ok=True)
        if status != 0:
            raise commandline.failure(self._runtime, target.id, "start", said, status=status)

    async def dial(self, pod: PodId, network: str, port: int) -> socket.socket:
        """By the runtime's `port-forward`, where the sandbox has a network of its own."""
        if not network:
            return await dial(network, port)
        if not self._handler.quirks.port_forward:
            raise Unsupported(
                f"handler {self.handler}: ports of its sandboxes cannot be reached: {self.version} of"
                f" {self._handler.version.name} has no port-forward"
            )
        await self._open()
        return await self._forwards.dial(pod, port)

    async def close(self) -> None:
        """Connections of port forwards end with the daemon."""
        await super().close()
        await self._forwards.close()
        await asyncio.to_thread(tidy, self._runtime.root, self._handler.quirks.root_mounts)

    # ---- the parts

    def _arrived(self, name: str) -> None:
        super()._arrived(name)
        if (answered := self._answers.get(name)) is not None:
            answered.set()

    def _lost(self) -> None:
        super()._lost()
        for name, answered in self._answers.items():
            if (self._run_dir / "execs" / name).exists():
                answered.set()

    def _prepare(
        self, target: Target, paths: MonitorFiles, spec: Mapping[str, Any], runtime_log: Path
    ) -> None:
        super()._prepare(target, paths, spec, runtime_log)
        program = target.directory / _PROGRAM
        go = target.directory / _GO
        runtime = self._runtime
        kinds = {namespace["type"] for namespace in spec.get("linux", {}).get("namespaces", ())}
        if "network" not in kinds:
            options = (*runtime.options, *self._handler.quirks.host_network_options)
            runtime = replace(runtime, options=options)
        text = script(runtime, runtime_log, target.id, paths.container_pid, go)
        try:
            write_atomic(program, text.encode())
            program.chmod(0o700)
            go.unlink(missing_ok=True)
            os.mkfifo(go, 0o600)
        except OSError as error:
            raise Internal(f"bundle of container {target.id}: {program}: {error.strerror}") from error

    def _monitor(self, target: Target, paths: MonitorFiles, runtime_log: Path) -> Monitor:
        monitor = super()._monitor(target, paths, runtime_log)
        return replace(monitor, runtime=target.directory / _PROGRAM, runtime_arguments=())

    def _living(self, target: Target, state: RuntimeState) -> ProcessRef | None:
        """What waits for the container; the runtime's pid is the sandbox's."""
        return self._outside(target)

    def _outside(self, target: Target) -> ProcessRef | None:
        """What the pid file names, if it still is our program. Blocking, for as long as reading two files."""
        if target.process is not None:
            return target.process
        program = target.directory / _PROGRAM
        try:
            pid = parse_pid(self._files(target).container_pid.read_bytes())
            if pid is None or os.fsencode(program) not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return None
            return process.reference(pid)
        except (OSError, Absent):
            return None

    async def _end_all(self, target: Target) -> None:
        """What was never started waits for the word to; let go without one, it ends."""

        def let_go() -> None:
            with contextlib.suppress(OSError):
                os.close(os.open(target.directory / _GO, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))

        await self._blocking(let_go)
        await super()._end_all(target)

    async def _delete_from_runtime(self, target: Target) -> None:
        """Twice where the first failed.

        A container that was killed before it was started is "not found" in its sandbox; the rest of it goes
        with the next delete (gVisor of 2026-09).
        """
        try:
            await super()._delete_from_runtime(target)
        except RuntimeFailed as error:
            log.warning("delete is repeated", extra={"container": target.id, "error": error.message})
            await super()._delete_from_runtime(target)

    async def _remove_rest(self, target: Target) -> None:
        await super()._remove_rest(target)
        try:
            for name in (_PROGRAM, _GO):
                (target.directory / name).unlink(missing_ok=True)
        except OSError as error:
            raise Internal(f"container {target.id}: removing {error.filename}: {error.strerror}") from error

        def remove_lock() -> None:  # runsc leaves it where it is killed before it has a state to save
            for lock in self._runtime.root.glob(f"{target.id}_sandbox:*.lock"):
                if not lock.with_suffix(".state").exists():
                    lock.unlink(missing_ok=True)

        await self._blocking(remove_lock)

    async def _kill_inner(self, target: Target, pid: int) -> None:
        """Kill what an exec started inside the sandbox, whose process outside is dead. Never raises.

        It leads a process group there, of which only newer runtimes know: else it alone is killed.
        """
        try:
            try:
                await self._verbs.kill_group(target.id, pid)
            except RuntimeFailed:
                await self._verbs.kill_process(target.id, pid)
        except (Absent, WrongState):
            return
        except CrispError as error:
            log.warning("exec is not killed", extra={"container": target.id, "error": str(error)})
