"""The driver of handlers of kind "oci": an OCI command line for the verbs, conmon for the container's life.

Puts together what the files beside it do (monitors, exits, exec, log) and the runtime's own verbs. Keeps
nothing that a restart would miss: what it watches it finds again from the `Target` and the run directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from oci import commandline
from oci.commandline import Phase, Runtime, RuntimeState
from oci.errors import Absent, CrispError, Deadline, Internal, RuntimeFailed, WrongState
from oci.features import HandlerFeatures
from oci.monitor import Monitor, resize_message
from oci.quirks import fitted, fitted_limits, fitted_process
from oci.workload import PodId
from shim import files, process
from shim.cgroups import Cgroups, Hierarchies
from shim.kernel.arrivals import Arrivals
from shim.lifecycle.locks import Locks
from shim.lifecycle.undo import to_the_end
from shim.network.dial import dial
from shim.process import CommandMissing
from shim.records import ProcessRef
from shim.rootfs import Rootfs
from shim.runtimes import attach, conmon, interactive, logfile, overlay
from shim.runtimes.attach import AttachSession
from shim.runtimes.conmon import MonitorFailed, MonitorFiles, Monitors
from shim.runtimes.driver import (
    Created,
    ExecRequest,
    ExecResult,
    ExitListener,
    Observed,
    Output,
    Session,
    Size,
    Status,
    StreamRequest,
    Target,
)
from shim.runtimes.exec import Execs
from shim.runtimes.execgroups import ExecGroups
from shim.runtimes.exits import DRAIN, ExitWatch, read_exit
from shim.runtimes.launch import Launches
from shim.runtimes.limits import Limits
from shim.runtimes.table import Handler
from shim.runtimes.verbs import Verbs, take_log
from shim.threads import in_executor, in_thread

T = TypeVar("T")

log = logging.getLogger(__name__)

_MONITOR_GRACE: Final = 2.0
_REOPEN_TIME: Final = 5.0
_THREADS: Final = 8
"""For file and cgroup access that can wait; apart from the loop's own threads, which pulls keep busy."""


class OciDriver:
    """See `shim.runtimes.driver.Driver`. Made on the event loop; `close` ends what it watches.

    `monitors` is the cgroup of all conmons, below each hierarchy. `timeout` bounds each call of the runtime,
    `kill_time` the time that processes may take to be gone after SIGKILL, `exec_drain` the wait for output
    that a process left behind by an exec holds open; all in seconds.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        run_dir: Path,
        exits: ExitListener,
        hierarchies: Hierarchies,
        systemd: bool,
        monitors: str,
        timeout: float = 120.0,
        kill_time: float = 10.0,
        exec_drain: float = 2.0,
        exit_drain: float = DRAIN,
    ) -> None:
        self._handler = handler
        self._run_dir = run_dir
        self._timeout = timeout
        self._kill_time = kill_time
        self._monitors_cgroup = monitors
        self._io = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"driver-{handler.name}")
        self._runtime = Runtime(
            handler=handler.name,
            program=handler.binary,
            root=handler.root,
            options=handler.options,
            create_options=handler.create_options,
            systemd_cgroup=systemd and handler.quirks.systemd_cgroup,
        )
        self._cgroup_version = 2 if hierarchies.unified else 1
        self._cgroups = Cgroups(hierarchies, io=self._io)
        self._monitors = Monitors(cgroups=self._cgroups, cgroup=monitors, io=self._io)
        self._exits = ExitWatch(
            run_dir=run_dir,
            cgroups=self._cgroups,
            monitors=self._monitors,
            listener=exits,
            io=self._io,
            drain=exit_drain,
        )
        self._exec_drain = exec_drain
        self._launches = Launches(
            runtime=self._runtime,
            directory=run_dir / "execs",
            cgroups=self._cgroups,
            groups=ExecGroups(hierarchies, support=handler.exec_group),
            io=self._io,
        )
        self._launches.fit = lambda process_: fitted_process(process_, handler.quirks)
        self._execs = Execs(self._launches, drain=exec_drain)
        self._verbs = Verbs(runtime=self._runtime, logs=run_dir / "logs", timeout=timeout, io=self._io)
        self._limits = Limits(
            handler=handler.name,
            apply=lambda target, change: self._verbs.update(target, fitted_limits(change, handler.quirks)),
            hierarchies=hierarchies,
            io=self._io,
            takes_no_quota=handler.quirks.takes_no_quota,
        )
        self._arrivals: Arrivals | None = None
        self._opening = asyncio.Lock()
        self._reopening = Locks()

    @property
    def handler(self) -> str:
        return self._handler.name

    @property
    def version(self) -> str:
        return self._handler.version.version

    @property
    def features(self) -> HandlerFeatures:
        return self._handler.features

    @property
    def needs_init(self) -> bool:
        return self._handler.quirks.sandbox

    async def mount_rootfs(self, directory: Path, rootfs: Rootfs) -> Path:
        """Raises Internal naming the mount and the kernel's words."""
        return await in_thread(overlay.mount_rootfs, directory / "rootfs", rootfs)

    async def unmount_rootfs(self, directory: Path) -> None:
        """Raises Internal naming the path."""
        await in_thread(overlay.unmount_rootfs, directory / "rootfs")

    async def create(self, target: Target, spec: Mapping[str, Any]) -> Created:
        """Raises RuntimeFailed (its `program_missing` tells a fault of the user's program), Deadline."""
        await self._open()
        paths = self._files(target)
        runtime_log = self._verbs.log(target.id, "create")
        try:
            fitting = fitted(spec, self._handler.quirks, cgroup_version=self._cgroup_version)
            await self._blocking(lambda: self._prepare(target, paths, fitting, runtime_log))
            monitor = self._monitor(target, paths, runtime_log)
            pid, monitor_ref = await self._monitors.create(monitor, timeout=self._timeout)
            await self._blocking(lambda: runtime_log.unlink(missing_ok=True))
            created = Created(process=process.reference(pid), monitor=monitor_ref)
        except BaseException as error:
            failure = await to_the_end(self._explain_create(target, error, runtime_log))
            await to_the_end(self._abandon(target))
            if failure is None:
                raise
            raise failure from error
        self._exits.watch(
            replace(target, process=created.process, monitor=monitor_ref), created.process, monitor_ref
        )
        return created  # nothing is awaited since the container was made: a cancel comes before or not at all

    async def start(self, target: Target) -> None:
        """Raises RuntimeFailed, WrongState, Absent, Deadline."""
        await self._open()
        await self._verbs.call("start", target.id, commandline.start)

    async def kill(self, target: Target, signal: int, *, everything: bool = False) -> None:
        """A signal to the first process costs one system call; to all, one for each process.

        With SIGKILL to everything it returns when all are gone; Internal names those that do not go.
        """
        if everything and target.cgroup:
            await self._kill_cgroup(target, signal)
        elif target.process is not None and not everything:
            process.signal(target.process, signal)
        else:
            await self._open()
            with contextlib.suppress(Absent, WrongState):
                await self._verbs.kill(target.id, signal, everything=everything)

    async def delete(self, target: Target) -> None:
        """Goes on where a part fails, so that as little as possible stays, and raises the first failure."""
        await self._open()
        await to_the_end(self._delete(target))

    async def observe(self, target: Target) -> Observed:
        """Asks the runtime only where the machine does not tell: whether a living process was started."""
        await self._open()
        paths = self._files(target)
        found = await self._blocking(lambda: read_exit(paths))
        if target.process is not None and not process.alive(target.process):
            return Observed(
                status=Status.STOPPED,
                exit=None if found is None else await self._exits.describe(target, found),
            )
        try:
            state = await self._verbs.state(target.id)
        except Absent:
            if target.process is None:
                exit_ = None if found is None else await self._exits.describe(target, found)
                return Observed(status=Status.ABSENT if exit_ is None else Status.STOPPED, exit=exit_)
            return Observed(status=Status.UNKNOWN, process=target.process)
        except CrispError as error:
            log.warning("state is not known", extra={"container": target.id, "error": str(error)})
            return Observed(status=Status.UNKNOWN, process=target.process)
        living = self._living(target, state)
        if state.phase is Phase.STOPPED or living is None:
            exit_ = None if found is None else await self._exits.describe(target, found)
            return Observed(status=Status.STOPPED, exit=exit_)
        started = state.phase in (Phase.RUNNING, Phase.PAUSED)
        return Observed(status=Status.RUNNING if started else Status.CREATED, process=living)

    async def adopt(self, target: Target) -> Observed:
        """Waits a bounded time for a conmon that has not yet written down how its container ended."""
        await self._open()
        monitor = target.monitor or await self._blocking(lambda: conmon.monitor_of(self._files(target)))
        await self._launches.clear(target)
        observed = await self.observe(target)
        if observed.status is Status.STOPPED:
            return replace(observed, exit=await self._exits.conclude(target, monitor))
        if observed.process is not None:
            self._exits.watch(
                replace(target, process=observed.process, monitor=monitor), observed.process, monitor
            )
        return observed

    async def exec_sync(self, target: Target, request: ExecRequest) -> ExecResult:
        """See `Execs.run`."""
        await self._open()
        try:
            return await self._execs.run(target, request)
        except CommandMissing as error:
            raise self._verbs.missing("exec", target.id, error) from error

    async def exec_stream(self, target: Target, request: StreamRequest) -> Session:
        """See `interactive.open_session`."""
        await self._open()
        try:
            return await interactive.open_session(
                self._launches,
                target,
                request,
                drain=self._exec_drain,
                console=self._handler.quirks.console_in_foreground,
            )
        except CommandMissing as error:
            raise self._verbs.missing("exec", target.id, error) from error

    async def attach(self, target: Target) -> Session:
        """See `AttachSession`. Raises Absent when the container's conmon is gone, Busy."""
        paths = self._files(target)

        async def resize(size: Size) -> None:
            message = resize_message(size.height, size.width)
            await self._blocking(lambda: conmon.send_control(paths, message))

        connected: list[socket.socket] = []
        try:
            await self._blocking(lambda: connected.append(attach.connect(paths.attach_socket)))
        except BaseException:
            for connection in connected:  # made while the caller went away
                connection.close()
            raise
        return AttachSession(
            connected[0],
            outputs=frozenset({Output.STDOUT} if target.tty else Output),
            ends_input=target.stdin_once and not target.tty,
            resize=resize if target.tty else None,
            name=f"attach to container {target.id}",
        )

    async def dial(self, pod: PodId, network: str, port: int) -> socket.socket:
        """See `shim.network.dial`."""
        return await dial(network, port)

    async def reopen_log(self, target: Target) -> None:
        """See `logfile.reopen`. A container without a log is success."""
        log_path = target.log_path
        if log_path is None:
            return
        monitor = target.monitor or await self._blocking(lambda: conmon.monitor_of(self._files(target)))
        if monitor is None or not process.alive(monitor):
            raise WrongState(f"log of container {target.id}: its conmon has ended, nothing writes it")
        async with self._reopening.exclusive(target.id):
            await logfile.reopen(self._files(target), log_path, monitor, io=self._io, timeout=_REOPEN_TIME)

    async def update(self, target: Target, resources: Mapping[str, Any]) -> Callable[[], Awaitable[None]]:
        """The runtime's `update`; the cgroup's files are as before when it raises."""
        return await self._limits.update(target, resources)

    async def checkpoint(self, target: Target, *, images: Path, work: Path, limit: float | None) -> None:
        """The runtime's `checkpoint`."""
        await self._verbs.checkpoint(target.id, images=images, work=work, limit=limit)

    async def close(self) -> None:
        """Stop watching; the monitors' cgroup goes with the last monitor."""
        await self._exits.close()
        if self._arrivals is not None:
            self._arrivals.close()
            self._arrivals = None
        with contextlib.suppress(Internal):
            await self._blocking(lambda: self._cgroups.remove(self._monitors_cgroup))
        self._io.shutdown(wait=False, cancel_futures=True)

    # ---- the parts

    async def _open(self) -> None:
        """Make the run directory's parts and the monitors' cgroup, and watch for answers; once."""
        async with self._opening:
            if self._arrivals is not None:
                return
            directories = [self._run_dir / name for name in ("ends", "attach", "execs", "logs")]
            await self._blocking(lambda: [files.make_private_directory(path) for path in directories])
            await self._blocking(lambda: self._cgroups.make(self._monitors_cgroup))
            arrivals = Arrivals(self._arrived, self._lost)
            try:
                arrivals.add(self._run_dir / "execs")
            except BaseException:
                arrivals.close()
                raise
            self._arrivals = arrivals

    def _arrived(self, name: str) -> None:
        self._launches.arrived(name)

    def _lost(self) -> None:
        self._launches.lost()

    def _living(self, target: Target, state: RuntimeState) -> ProcessRef | None:
        """The container's process, as recorded or as the runtime says."""
        return target.process or _reference(state.pid)

    def _prepare(
        self, target: Target, paths: MonitorFiles, spec: Mapping[str, Any], runtime_log: Path
    ) -> None:
        """Write what create reads; the runtime's words will be in `runtime_log`. Blocking."""
        document = json.dumps(spec, separators=(",", ":")).encode("ascii")
        try:
            files.write_atomic(target.directory / "config.json", document)
            conmon.prepare(paths, target.log_path)
        except OSError as error:
            raise Internal(f"bundle of container {target.id}: {error.filename}: {error.strerror}") from error

    def _files(self, target: Target) -> MonitorFiles:
        return MonitorFiles(bundle=target.directory, run_dir=self._run_dir, id=target.id)

    def _monitor(self, target: Target, paths: MonitorFiles, runtime_log: Path) -> Monitor:
        return Monitor(
            program=self._handler.monitor,
            id=target.id,
            bundle=target.directory,
            runtime=self._runtime.program,
            runtime_arguments=commandline.global_arguments(self._runtime, runtime_log),
            runtime_options=self._runtime.create_options,
            container_pid_file=paths.container_pid,
            monitor_pid_file=paths.monitor_pid,
            first_directory=paths.end,
            last_directory=paths.persist,
            socket_directory=paths.attach,
            log_path=target.log_path,
            tty=target.tty,
            stdin=target.stdin,
            stdin_once=target.stdin_once,
            systemd_cgroup=self._runtime.systemd_cgroup,
        )

    async def _explain_create(
        self, target: Target, error: BaseException, runtime_log: Path
    ) -> CrispError | None:
        """What a failed create means, None when the error says it itself."""
        words = await self._blocking(lambda: take_log(runtime_log))
        if isinstance(error, CommandMissing):
            return self._verbs.missing("create", target.id, error)
        if isinstance(error, MonitorFailed):
            said = words or error.said or error.message
            return commandline.failure(self._runtime, target.id, "create", said, status=None)
        if isinstance(error, Absent):
            return RuntimeFailed(
                f"handler {self.handler}: create of container {target.id}: its process ended at once"
                f"{': ' + words if words else ''}",
                verb="create",
            )
        if isinstance(error, Deadline):
            return Deadline(f"handler {self.handler}: {error.message}{': ' + words if words else ''}")
        return None

    async def _abandon(self, target: Target) -> None:
        """Remove what a failed create has left; its own failures are logged, for the first one is raised."""
        try:
            await self._delete(target)
        except CrispError as error:
            log.warning(
                "what a failed create left is not removed",
                extra={"container": target.id, "error": str(error)},
            )

    async def _delete(self, target: Target) -> None:
        failures: list[CrispError] = []
        for part in (self._kill_rest, self._delete_from_runtime, self._end_monitor, self._remove_rest):
            try:
                await part(target)
            except CrispError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _kill_rest(self, target: Target) -> None:
        """Kill what lives, and let the listener hear of it while the cgroup's counters are still there."""
        if target.cgroup:
            await self._kill_cgroup(target, signal.SIGKILL)
        elif target.process is not None and process.signal(target.process, signal.SIGKILL):
            await process.wait_gone(target.process, self._kill_time)
        await self._exits.ended(target.id, timeout=self._kill_time)
        self._exits.forget(target.id)

    async def _delete_from_runtime(self, target: Target) -> None:
        with contextlib.suppress(Absent):
            await self._verbs.delete(target.id)

    async def _end_monitor(self, target: Target) -> None:
        paths = self._files(target)
        monitor = target.monitor or await self._blocking(lambda: conmon.monitor_of(paths))
        if monitor is not None:
            await self._monitors.end(monitor, grace=_MONITOR_GRACE)

    async def _remove_rest(self, target: Target) -> None:
        def remove() -> None:
            conmon.remove_leftovers(self._files(target))
            if target.cgroup:
                self._cgroups.remove(target.cgroup)

        await self._launches.clear(target)
        try:
            await self._blocking(remove)
        except OSError as error:
            raise Internal(f"container {target.id}: removing {error.filename}: {error.strerror}") from error
        self._launches.gone(target)

    async def _kill_cgroup(self, target: Target, number: int) -> None:
        left = await self._cgroups.kill_everything(
            target.cgroup, timeout=self._kill_time, number=number, first=target.process
        )
        if left:
            raise Internal(
                f"container {target.id}: processes {', '.join(map(str, left))} of cgroup {target.cgroup} "
                f"did not end within {self._kill_time:g} s of SIGKILL; they hang in the kernel"
            )

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await in_executor(self._io, work)


def _reference(pid: int) -> ProcessRef | None:
    if pid <= 0:
        return None
    try:
        ref = process.reference(pid)
    except Absent:
        return None
    return ref if process.alive(ref) else None
