"""Noticing that containers end, and how: their first processes, and then conmon's exit files.

The process is watched by pidfd. The exit file counts: conmon writes it after the last output is in the log,
and ends, which is waited for. None comes where conmon was killed, or hangs on output that a survivor keeps
open. Nothing is polled.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from signal import SIGKILL
from typing import Final, TypeVar

from oci.errors import CrispError
from oci.monitor import parse_exit_code
from oci.workload import ContainerId
from shim import process
from shim.cgroups import Cgroups
from shim.kernel import pidfd
from shim.records import ProcessRef
from shim.runtimes.conmon import MonitorFiles, Monitors
from shim.runtimes.driver import Exit, ExitListener, Target

T = TypeVar("T")

log = logging.getLogger(__name__)

DRAIN: Final = 5.0
"""Seconds that conmon has to bring the last output into the log after everything in the container is dead."""

_LOOK_AGAIN = 1.0  # seconds until a monitor that could not be watched is tried again


def read_exit(files: MonitorFiles) -> tuple[int | None, int] | None:
    """Code and end (nanoseconds) from conmon's exit file, None when there is none. Blocking.

    The run directory's file is gone after a reboot; the one in the container's directory is not.
    """
    for path in (files.exit_file, files.persistent_exit_file, *files.earlier):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            return parse_exit_code(os.read(descriptor, 64)), os.fstat(descriptor).st_ctime_ns
        finally:
            os.close(descriptor)
    return None


def was_oom_killed(cgroups: Cgroups, target: Target, files: MonitorFiles) -> bool:
    """Whether the kernel killed a process of the container for want of memory. Blocking.

    The cgroup's own counter decides. conmon's file is believed only when the cgroup is gone: it can miss the
    event on version 1 and can report one without a kill on version 2.
    """
    if target.cgroup:
        kills = cgroups.oom_kills(target.cgroup)
        if kills is not None:
            return kills > 0
    return oom_noted(files)


def oom_missed(cgroups: Cgroups, target: Target, code: int | None, gone_before: int | None) -> bool:
    """Whether a container was killed for want of memory whose cgroup and conmon both do not tell. Blocking.

    systemd removes a scope as soon as it is empty, and conmon ends with the container's process before it has
    looked at an event that came just before. What the pod's group counts has grown then since `gone_before`.
    """
    if code != 128 + SIGKILL or gone_before is None or cgroups.oom_kills(target.cgroup) is not None:
        return False
    gone = cgroups.oom_kills_of_gone(target.cgroup)
    return gone is not None and gone > gone_before


def oom_noted(files: MonitorFiles) -> bool:
    """Whether conmon says that a process was killed for want of memory. Blocking."""
    return any((place / "oom").exists() for place in (files.end, files.bundle, files.persist))


class _Watch:
    """One living container."""

    def __init__(self, target: Target, ref: ProcessRef, monitor: ProcessRef | None) -> None:
        self.target = target
        self.process = ref
        self.monitor = monitor
        self.ended = asyncio.Event()
        self.died_at = 0
        self.oom_kills_of_gone: int | None = None
        self.descriptor = -1
        self.unwatch: Callable[[], None] | None = None
        self.task: asyncio.Task[None] | None = None

    def release(self) -> None:
        if self.unwatch is not None:
            self.unwatch()
            self.unwatch = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class ExitWatch:
    """Tells the listener of every watched container's end, once, on the event loop."""

    def __init__(
        self,
        *,
        run_dir: Path,
        cgroups: Cgroups,
        monitors: Monitors,
        listener: ExitListener,
        io: Executor,
        drain: float = DRAIN,
    ) -> None:
        self._run_dir = run_dir
        self._cgroups = cgroups
        self._monitors = monitors
        self._listener = listener
        self._io = io
        self._drain = drain
        self._watches: dict[str, _Watch] = {}

    def files(self, target: Target) -> MonitorFiles:
        return MonitorFiles(bundle=target.directory, run_dir=self._run_dir, id=target.id)

    def watch(self, target: Target, ref: ProcessRef, monitor: ProcessRef | None) -> None:
        """Watch a container whose process was alive a moment ago. One already watched stays as it is."""
        if target.id in self._watches:
            return
        watch = self._watches[target.id] = _Watch(target, ref, monitor)
        # Some four small files, 64 us, and only of systemd's scopes: less than the way to a thread and back.
        watch.oom_kills_of_gone = self._cgroups.oom_kills_of_gone(target.cgroup)
        descriptor = pidfd.open_process(ref)
        if descriptor is None:
            self._died(watch)
        else:
            watch.descriptor = descriptor
            watch.unwatch = pidfd.on_exit(descriptor, lambda: self._died(watch))

    def watches(self, container: ContainerId) -> bool:
        return container in self._watches

    async def ended(self, container: ContainerId, *, timeout: float) -> bool:  # noqa: ASYNC109 - the answer tells
        """Wait until the listener was told of this container's end; True too for one that is not watched."""
        watch = self._watches.get(container)
        if watch is None:
            return True
        try:
            async with asyncio.timeout(timeout):
                await watch.ended.wait()
        except TimeoutError:
            return False
        return True

    def forget(self, container: ContainerId) -> None:
        """Stop watching without telling the listener."""
        watch = self._watches.pop(container, None)
        if watch is not None:
            watch.release()
            watch.ended.set()
            if watch.task is not None:
                watch.task.cancel()

    async def close(self) -> None:
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        for container in list(self._watches):
            self.forget(ContainerId(container))
        await asyncio.gather(*tasks, return_exceptions=True)

    async def describe(self, target: Target, found: tuple[int | None, int]) -> Exit:
        """What `read_exit` found, with what the cgroup says."""
        code, finished_at = found
        oom = await self._blocking(lambda: was_oom_killed(self._cgroups, target, self.files(target)))
        return Exit(code=code, finished_at=finished_at, oom_killed=oom)

    async def conclude(self, target: Target, monitor: ProcessRef | None) -> Exit:
        """How a container ended whose process is dead: waits for conmon while that can still tell."""
        return await self._conclude(target, monitor, time.time_ns(), None)

    def _died(self, watch: _Watch) -> None:
        watch.died_at = time.time_ns()
        if watch.task is None:
            watch.task = asyncio.get_running_loop().create_task(self._finish(watch))

    async def _finish(self, watch: _Watch) -> None:
        ended = await self._conclude(watch.target, watch.monitor, watch.died_at, watch.oom_kills_of_gone)
        if self._watches.get(watch.target.id) is not watch:
            return
        del self._watches[watch.target.id]
        watch.release()
        try:
            self._listener(watch.target.id, ended)
        except Exception:
            log.exception("the exit of a container was not taken", extra={"container": watch.target.id})
        finally:
            watch.ended.set()
        if watch.oom_kills_of_gone is not None:
            await self._count_again(watch.target)

    async def _count_again(self, ended: Target) -> None:
        """What is explained by this end must not be taken for the end of another one of its pod."""
        pod = ended.cgroup.rpartition("/")[0]
        beside = [watch for watch in self._watches.values() if watch.target.cgroup.rpartition("/")[0] == pod]

        def counts() -> list[int | None]:
            return [
                watch.oom_kills_of_gone
                if self._cgroups.oom_kills(watch.target.cgroup) is None  # it has ended as well
                else self._cgroups.oom_kills_of_gone(watch.target.cgroup)
                for watch in beside
            ]

        for watch, count in zip(beside, await self._blocking(counts), strict=True):
            watch.oom_kills_of_gone = count

    async def _conclude(
        self,
        target: Target,
        monitor: ProcessRef | None,
        died_at: int,
        gone_before: int | None,
    ) -> Exit:
        """Never raises: an exit that cannot be explained is still an exit."""
        # Where the pid namespace is shared the death of the first process takes nothing with it: its children
        # run on, and may hold the output open. A container is its first process, so they go too.
        await self._kill_survivors(target)
        await self._wait_for(target, monitor)
        return await self._blocking(lambda: self._read(target, died_at, gone_before))

    async def _wait_for(self, target: Target, monitor: ProcessRef | None) -> None:
        """Until conmon has written all that it will write: it may be between its two files."""
        if monitor is None or await self._gone(monitor):
            return
        log.warning(
            "conmon does not end though its container has",
            extra={"container": target.id, "conmon": monitor.pid},
        )
        await self._kill_survivors(target)
        try:
            await self._monitors.end(monitor)
        except (CrispError, OSError) as error:
            log.error("conmon cannot be ended", extra={"container": target.id, "error": str(error)})

    async def _gone(self, monitor: ProcessRef) -> bool:
        """Whether it ends within the drain time, which begins once there is a descriptor to watch it by."""
        while True:
            try:
                return await process.wait_gone(monitor, self._drain)
            except OSError as error:
                log.error("conmon cannot be watched", extra={"conmon": monitor.pid, "reason": str(error)})
                await asyncio.sleep(_LOOK_AGAIN)

    async def _kill_survivors(self, target: Target) -> None:
        if not target.cgroup:
            return
        try:
            if self._cgroups.is_empty(target.cgroup):
                return
            left = await self._cgroups.kill_everything(target.cgroup, timeout=self._drain)
        except (CrispError, OSError) as error:
            log.error("survivors are not killed", extra={"container": target.id, "error": str(error)})
            return
        if left:
            log.error("processes do not die", extra={"container": target.id, "processes": left})

    def _read(self, target: Target, died_at: int, gone_before: int | None) -> Exit:
        files = self.files(target)
        found = read_exit(files)
        code, finished_at = found if found is not None else (None, died_at or time.time_ns())
        oom = was_oom_killed(self._cgroups, target, files)
        oom = oom or oom_missed(self._cgroups, target, code, gone_before)
        # With systemd the cgroup goes by itself, and then only conmon's file is left to tell.
        kept = found is not None and oom == oom_noted(files)
        return Exit(code=code, finished_at=finished_at, oom_killed=oom, kept=kept)

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, work)
