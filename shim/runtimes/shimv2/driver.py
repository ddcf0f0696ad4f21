"""The driver of handlers of kind "shim": a containerd shim v2 for the verbs, the log process for the output.

Puts together what the files beside it do. Keeps nothing that a restart would miss: the shims' directories
and the containers' say what there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final, TypeVar

from oci.commandline import Runtime
from oci.errors import Absent, CrispError, Deadline, RuntimeFailed, Unsupported, WrongState
from oci.features import HandlerFeatures
from oci.quirks import Ability, fitted
from oci.workload import PodId
from shim import process
from shim.cgroups import Cgroups, Hierarchies
from shim.kernel import capabilities
from shim.lifecycle.undo import to_the_end
from shim.logger.keeper import LogKeeper
from shim.network.dial import dial
from shim.records import ProcessRef
from shim.rootfs import Rootfs
from shim.runtimes import overlay
from shim.runtimes.attach import AttachSession
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
from shim.runtimes.limits import Limits
from shim.runtimes.sandboxes import Forwards, tidy
from shim.runtimes.shimv2 import bundle, configuration, meaning, sessions, task
from shim.runtimes.shimv2.creations import Creations
from shim.runtimes.shimv2.deletions import Deletions
from shim.runtimes.shimv2.execs import Execs
from shim.runtimes.shimv2.exits import DRAIN, OOM_WAIT, ExitWatch, exit_of
from shim.runtimes.shimv2.families import family_of, publishes
from shim.runtimes.shimv2.kills import Kills
from shim.runtimes.shimv2.shims import Shim, Shims, ShimSettings
from shim.runtimes.shimv2.task import Ended
from shim.runtimes.table import Handler
from shim.threads import in_executor, in_thread

T = TypeVar("T")

log = logging.getLogger(__name__)

_THREADS: Final = 8


class ShimDriver:
    """See `shim.runtimes.driver.Driver`. Made on the event loop; `close` ends what it watches.

    `keeper` is shared by all handlers and not closed here. `monitors` is the cgroup of the shims, below each
    hierarchy. `timeout` bounds each call, `kill_time` the time that processes may take to be gone after
    SIGKILL, `exec_drain` the wait for output that a process left behind by an exec holds; all in seconds.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        run_dir: Path,
        keeper: LogKeeper,
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
        self._family = family_of(handler.binary.name)
        self._publishes = publishes(self._family, handler.version.version)
        self._tells_late = not self._family.host_processes and Ability.OOM not in handler.quirks.lacks
        self._keeper = keeper
        self._fifos = run_dir / "fifos"
        self._kill_time = kill_time
        self._exec_drain = exec_drain
        self._exit_drain = exit_drain
        self._io = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"driver-{handler.name}")
        runtime = Runtime(handler=handler.name, program=handler.binary, root=handler.root)
        self._meant = partial(meaning.explain, runtime)
        self._root = handler.root if handler.config_path is not None else configuration.below(handler.root)
        self._forwards = None
        if handler.runtime_binary is not None and handler.quirks.port_forward:
            inside = replace(runtime, program=handler.runtime_binary, root=self._root)
            self._forwards = Forwards(inside, directory=run_dir / "s", io=self._io)
        self._create_options = partial(meaning.create_options, handler, self._family, systemd=systemd)
        self._cgroup_version = 2 if hierarchies.unified else 1
        self._cgroups = Cgroups(hierarchies, io=self._io)
        self._shims = Shims(
            ShimSettings(
                handler=handler.name,
                program=handler.binary,
                version=handler.version.version,
                family=self._family,
                directory=run_dir / "shims" / handler.name,
                sockets=run_dir / "s",
                events=str(keeper.events) if self._publishes else "",
                monitors=monitors,
                options=self._create_options(),
                timeout=timeout,
                configure=self._configured(),
                namespaced=self._family.insists_on_score and not capabilities.has(capabilities.SYS_RESOURCE),
            ),
            cgroups=self._cgroups,
            keeper=keeper,
            io=self._io,
            lost=self._shim_lost,
        )
        self._exits = ExitWatch(
            listener=exits, find=self._shims.find_or_end, clean_up=self._shims.clean_up, settle=self._settle
        )
        self._kills = Kills(
            handler.name,
            self._family,
            shims=self._shims,
            exits=self._exits,
            cgroups=self._cgroups,
            patience=kill_time,
            explain=self._meant,
        )
        self._deletions = Deletions(
            self._family,
            shims=self._shims,
            kills=self._kills,
            exits=self._exits,
            keeper=keeper,
            cgroups=self._cgroups,
            fifos=self._fifos,
            patience=kill_time,
            io=self._io,
        )
        self._creations = Creations(
            handler.name, timeout=timeout, patience=kill_time, kept=self._exits.watches
        )
        self._execs = Execs(
            directory=self._fifos,
            host_processes=self._family.host_processes,
            cgroups=self._cgroups,
            explain=self._meant,
            io=self._io,
            drain=exec_drain,
        )
        self._limits = Limits(
            handler=handler.name, apply=self._apply_limits, hierarchies=hierarchies, io=self._io
        )
        self._tasks: set[asyncio.Task[None]] = set()

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
        return self._family.first_process

    async def mount_rootfs(self, directory: Path, rootfs: Rootfs) -> Path:
        """Raises Internal naming the mount and the kernel's words."""
        return await in_thread(overlay.mount_rootfs, directory / "rootfs", rootfs)

    async def unmount_rootfs(self, directory: Path) -> None:
        """Raises Internal naming the path."""
        await in_thread(overlay.unmount_rootfs, directory / "rootfs")

    async def create(self, target: Target, spec: Mapping[str, Any]) -> Created:
        """Raises RuntimeFailed (its `program_missing` tells a fault of the user's program), Deadline."""
        fitting = fitted(spec, self._handler.quirks, cgroup_version=self._cgroup_version)
        try:
            stdio = await self._blocking(lambda: bundle.prepare(target, fitting, self._fifos / target.id))
            await self._read_output(target)
            shim = await self._shims.acquire(target, fitting)
            options = self._create_options(configuration=self._shims.configuration(shim))
            where = self._shims.bundle(target, shim)
            pid = await self._creations.create(target, shim, where, stdio, options)
            created = Created(process=process.reference(pid), monitor=shim.process)
        except BaseException as error:
            await to_the_end(self._abandon(target))
            if isinstance(error, RuntimeFailed | Deadline) or not isinstance(error, CrispError):
                raise
            if isinstance(error, Absent) and "process" in error.message:
                raise RuntimeFailed(
                    f"handler {self.handler}: create of container {target.id}: its process ended at once",
                    verb="create",
                ) from error
            raise self._meant(target.id, "create", error) from error
        self._exits.watch(replace(target, process=created.process), shim)
        return created  # nothing is awaited since the container was made: a cancel comes before or not at all

    async def start(self, target: Target) -> None:
        """Raises RuntimeFailed, WrongState, Absent, Deadline."""
        shim = await self._need(target)
        try:
            await shim.task.start(target.id)
        except CrispError as error:
            raise self._meant(target.id, "start", error) from error

    async def kill(self, target: Target, signal: int, *, everything: bool = False) -> None:
        """See `Kills.kill`."""
        await self._kills.kill(target, signal, everything=everything)

    async def delete(self, target: Target) -> None:
        """See `Deletions.delete`."""
        await to_the_end(self._deletions.delete(target))

    async def observe(self, target: Target) -> Observed:
        """What the shim says; without a shim nothing of the container can live that anybody supervises.

        Ends nothing: what a shim that does not answer serves is not known.
        """
        try:
            shim = await self._shims.find(target)
            if shim is None:
                return self._unsupervised(target)
            state = await shim.task.state(target.id)
        except Absent:
            return Observed(status=Status.ABSENT if target.process is None else Status.STOPPED)
        except CrispError as error:
            log.warning("state is not known", extra={"container": target.id, "error": str(error)})
            return Observed(status=Status.UNKNOWN, process=target.process)
        if state.status == task.STOPPED:
            return Observed(status=Status.STOPPED, exit=exit_of(state.ended))
        if state.status == task.UNKNOWN:
            return Observed(status=Status.UNKNOWN, process=target.process)
        living = target.process or _reference(state.pid)
        status = Status.CREATED if state.status == task.CREATED else Status.RUNNING
        return Observed(status=status, process=living)

    async def adopt(self, target: Target) -> Observed:
        """Takes the shim's connection and the fifos up again; a dead shim's leavings are removed.

        One that does not answer is ended: nobody could drive its containers.
        """
        shim = await self._shims.find_or_end(target)
        if shim is None:
            return await self._adopt_dead(target)
        if await self._blocking((self._fifos / target.id).is_dir):
            await self._read_output(target)
        await self._execs.clear(target, shim)
        observed = await self.observe(target)
        if observed.status is Status.STOPPED:
            ended = await self._last_words(target, shim)
            return Observed(status=Status.STOPPED, exit=await self._exits.conclude(target, ended))
        if observed.process is not None:
            self._exits.watch(replace(target, process=observed.process), shim)
        return observed

    async def exec_sync(self, target: Target, request: ExecRequest) -> ExecResult:
        """See `Execs.run`."""
        return await self._execs.run(target, await self._need(target), request)

    async def exec_stream(self, target: Target, request: StreamRequest) -> Session:
        """See `sessions.open_session`."""
        return await sessions.open_session(
            self._execs, target, await self._need(target), request, drain=self._exec_drain
        )

    async def attach(self, target: Target) -> Session:
        """See `AttachSession`; the other end is the log process. Raises Absent once the container ended."""

        async def resize(size: Size) -> None:
            with contextlib.suppress(CrispError):
                shim = await self._need(target)
                await shim.task.resize(target.id, "", width=size.width, height=size.height)

        if not self._exits.watches(target.id):
            raise Absent(f"attach: container {target.id} has ended")
        return AttachSession(
            await self._keeper.attach(target.id),
            outputs=frozenset({Output.STDOUT} if target.tty else Output),
            ends_input=target.stdin_once and not target.tty,
            resize=resize if target.tty else None,
            name=f"attach to container {target.id}",
        )

    async def dial(self, pod: PodId, network: str, port: int) -> socket.socket:
        """See `shim.network.dial`; by the runtime below, where the sandbox has a network of its own."""
        if network and self._forwards is not None:
            return await self._forwards.dial(pod, port)
        return await dial(network, port)

    async def reopen_log(self, target: Target) -> None:
        """A container without a log is success. Raises WrongState once it has ended, Internal."""
        if target.log_path is None:
            return
        try:
            await self._keeper.reopen(target.id)
        except Absent as error:
            raise WrongState(f"log of container {target.id}: it has ended, nothing writes it") from error

    async def update(self, target: Target, resources: Mapping[str, Any]) -> Callable[[], Awaitable[None]]:
        """The shim's Update; the cgroup's files are as before when it raises."""
        return await self._limits.update(target, resources)

    async def checkpoint(self, target: Target, *, images: Path, work: Path, limit: float | None) -> None:
        """Not through a shim: `features.checkpoint` is never set. Raises Unsupported."""
        raise Unsupported(f'handler {self.handler}: containers of kind "shim" are not checkpointed')

    async def close(self) -> None:
        """Stop watching; shims and containers stay."""
        await self._exits.close()
        await self._creations.close()
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._shims.close()
        if self._forwards is not None:
            await self._forwards.close()
        await self._blocking(lambda: tidy(self._root, self._handler.quirks.root_mounts))
        self._io.shutdown(wait=False, cancel_futures=True)

    # ---- the parts

    def _configured(self) -> Callable[[Mapping[str, Any]], str] | None:
        """What writes the shims' configuration; None where they take none, or somebody else wrote it."""
        handler = self._handler
        if not self._family.configured or handler.config_path is not None or handler.runtime_binary is None:
            return None
        return partial(configuration.written, handler.runtime_binary, handler.root, handler.quirks)

    async def _read_output(self, target: Target) -> None:
        outlet = bundle.outlet(target, self._fifos / target.id)
        await self._keeper.add(outlet, on_input_ended=lambda: self._input_ended(target))

    def _input_ended(self, target: Target) -> None:
        """The client has ended the container's input: the shim's own writing end is closed too."""
        made = asyncio.get_running_loop().create_task(self._close_input(target), name="end of input")
        self._tasks.add(made)
        made.add_done_callback(self._tasks.discard)

    async def _close_input(self, target: Target) -> None:
        try:
            shim = await self._shims.find(target)
            if shim is not None:
                await shim.task.close_input(target.id)
        except CrispError as error:
            log.warning("input is not ended", extra={"container": target.id, "error": str(error)})

    def _shim_lost(self, key: str) -> None:
        log.warning("the connection to a shim is lost", extra={"shim": key, "handler": self.handler})

    async def _need(self, target: Target) -> Shim:
        shim = await self._shims.find(target)
        if shim is None:
            raise Absent(f"handler {self.handler}: container {target.id} has no shim, or it is dead")
        return shim

    async def _settle(self, target: Target, ended: Ended | None) -> bool:
        """Bring the last output in and ask the cgroup, before anything of it goes."""
        if self._family.host_processes and target.cgroup:
            # Where the pid namespace is shared the death of the first process takes nothing with it.
            await self._cgroups.kill_everything(target.cgroup, timeout=self._exit_drain)
        try:
            async with asyncio.timeout(self._exit_drain):
                await self._keeper.drain(target.id)
        except TimeoutError:
            log.warning("the output of an ended container does not end", extra={"container": target.id})
        if self._publishes:
            try:
                # An event may come after the answer to Wait, and of a guest nothing else tells it.
                feared = ended is not None and ended.code == 128 + SIGKILL and self._tells_late
                if await self._keeper.oom(target.id, wait=OOM_WAIT if feared else 0):
                    return True
            except CrispError as error:  # the cgroup may know it too
                log.warning("events are not known", extra={"container": target.id, "error": str(error)})
        if not target.cgroup:
            return False
        return bool(await self._blocking(lambda: self._cgroups.oom_kills(target.cgroup)))

    def _unsupervised(self, target: Target) -> Observed:
        if target.process is None:
            return Observed(status=Status.ABSENT)
        if self._family.host_processes and process.alive(target.process):
            return Observed(status=Status.UNKNOWN, process=target.process)
        return Observed(status=Status.STOPPED)

    async def _adopt_dead(self, target: Target) -> Observed:
        """The shim is gone: its program removes what it left; the exit is what that still knows."""
        ended = None
        try:
            ended = await self._shims.clean_up(target)
        except CrispError as error:
            log.error("what a dead shim left stays", extra={"container": target.id, "error": str(error)})
        await self._execs.clear(target, None)
        if target.process is None:  # nor was there ever one, perhaps: programs say 137 of that, too
            return Observed(status=Status.ABSENT)
        if await self._blocking((self._fifos / target.id).is_dir):
            await self._read_output(target)
        return Observed(status=Status.STOPPED, exit=await self._exits.conclude(target, ended))

    async def _last_words(self, target: Target, shim: Shim) -> Ended | None:
        with contextlib.suppress(CrispError):
            return (await shim.task.state(target.id)).ended
        return None

    async def _abandon(self, target: Target) -> None:
        """Remove what a failed create has left; its own failures are logged, for the first one is raised."""
        try:
            await self._deletions.delete(target)
        except CrispError as error:
            log.warning(
                "what a failed create left is not removed",
                extra={"container": target.id, "error": str(error)},
            )

    async def _apply_limits(self, target: Target, resources: Mapping[str, Any]) -> None:
        shim = await self._need(target)
        try:
            await shim.task.update(target.id, resources)
        except CrispError as error:
            raise self._meant(target.id, "update", error) from error

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
