"""Processes beside a container's own, through a shim: their fifos, their end with their tree.

Each exec has a directory below its container's; one that is still there after a restart names a process that
nobody waits for any more. What becomes of the output is decided in `exec_sync` here and in `sessions.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, TypeVar

from oci.errors import CrispError, Deadline, WrongState
from shim import files
from shim.cgroups import Cgroups
from shim.lifecycle.undo import to_the_end
from shim.records import ProcessRef
from shim.runtimes import processtree
from shim.runtimes.driver import ExecRequest, ExecResult, Output, Target
from shim.runtimes.flow import CHUNK, Source
from shim.runtimes.shimv2.shims import Shim
from shim.runtimes.shimv2.task import Ended, Stdio
from shim.threads import in_executor

T = TypeVar("T")

_KILL_TIME: Final = 5.0
AFTERMATH: Final = 1.0
"""Seconds for the exec to end and its output to close after everything that held them was killed."""

Explain = Callable[[str, str, CrispError], CrispError]
"""(container, verb, what the shim said) to what that means."""


class Running:
    """One exec under way."""

    def __init__(self, target: Target, shim: Shim, directory: Path) -> None:
        self.target = target
        self.shim = shim
        self.id = directory.name
        self.directory = directory
        self.pid = 0
        self.announced = False
        self.starting: asyncio.Task[int] | None = None
        self.started = False

    def path(self, name: str) -> Path:
        return self.directory / name


class Execs:
    """`directory` has one directory for each container; `host_processes` says whether /proc shows them."""

    def __init__(
        self,
        *,
        directory: Path,
        host_processes: bool,
        cgroups: Cgroups,
        explain: Explain,
        io: Executor,
        drain: float,
    ) -> None:
        self._cgroups = cgroups
        self._directory = directory
        self._host_processes = host_processes
        self._explain = explain
        self._io = io
        self._drain = drain
        self._running: set[str] = set()

    def begin(self, target: Target, shim: Shim, names: Iterable[str]) -> Running:
        """Make the fifos of the streams that are wanted. `forget` is owed from here on. Raises OSError."""
        running = Running(target, shim, self._directory / target.id / f"exec-{secrets.token_hex(8)}")
        files.make_private_directory(running.directory)
        self._running.add(running.id)
        for name in names:
            os.mkfifo(running.path(name), 0o700)
        return running

    async def start(self, running: Running, process: Mapping[str, Any], stdio: Stdio) -> asyncio.Task[Ended]:
        """Run the process; the task waits for its end. Raises what kept it from running."""
        task, of = running.shim.task, running.target
        waiting: asyncio.Task[Ended] | None = None
        try:
            running.announced = True  # from here on the shim may know it, whatever it answers
            await task.execute(of.id, running.id, process, stdio)
            waiting = asyncio.get_running_loop().create_task(self._wait(running), name="exec")
            running.starting = asyncio.get_running_loop().create_task(task.start(of.id, running.id))
            running.starting.add_done_callback(_retrieved)
            running.pid = await asyncio.shield(running.starting)
            running.started = True
        except CrispError as error:
            if waiting is not None:
                await _cancelled(waiting)
            raise self._explain(of.id, "exec", error) from error
        except BaseException:
            if waiting is not None:
                await _cancelled(waiting)
            raise
        return waiting

    async def _wait(self, running: Running) -> Ended:
        try:
            return await running.shim.task.wait(running.target.id, running.id)
        except CrispError as error:
            raise self._explain(running.target.id, "exec", error) from error

    async def forget(self, running: Running) -> None:
        """Let the shim forget it and remove what belongs to it. It has ended, or is ended here."""
        if running.starting is not None and not running.starting.done():
            await self._learn(running)
            await self.end_tree(running)
        if running.announced and not running.shim.client.closed:
            task, of = running.shim.task, running.target
            with contextlib.suppress(CrispError):
                try:
                    await task.delete(of.id, running.id)
                except WrongState:  # it runs
                    await self.end_tree(running)
                    await task.delete(of.id, running.id)
        self._running.discard(running.id)
        await self._blocking(lambda: files.remove_tree(running.directory))

    async def end_tree(self, running: Running) -> int:
        """Kill everything that the exec started; how many that were, as far as /proc shows them."""
        task, of = running.shim.task, running.target
        killed = 0
        if self._host_processes and running.pid:
            pipes = await self._blocking(lambda: processtree.pipes_of(running.pid))
            killed = await self._kill(lambda: self._family(running, pipes))
        with contextlib.suppress(CrispError):
            await task.kill(of.id, signal.SIGKILL, exec_id=running.id, everything=False)
        return killed

    async def end_holders(self, running: Running) -> None:
        """Kill what the ended process left behind with the output open, and nothing else."""
        shim = running.shim.process
        if not self._host_processes or shim is None:
            return

        def find() -> list[ProcessRef]:
            table = processtree.read_table()
            family = processtree.members(table, {running.pid}, running.pid)
            held = processtree.holders(family, processtree.pipes_of(shim.pid))
            return [table[pid].reference for pid in held]

        await self._kill(find)

    async def clear(self, target: Target, shim: Shim | None) -> None:
        """End what execs before a restart have left in the container."""
        parent = self._directory / target.id

        def leftovers() -> list[Path]:
            return [path for path in parent.glob("exec-*") if path.name not in self._running]

        for directory in await self._blocking(leftovers):
            if shim is not None:
                running = Running(target, shim, directory)
                running.announced = True
                with contextlib.suppress(CrispError):
                    running.pid = (await shim.task.state(target.id, running.id)).pid
                    await self.end_tree(running)
                    async with asyncio.timeout(_KILL_TIME):
                        await shim.task.wait(target.id, running.id)
                await self.forget(running)
            else:
                await self._blocking(lambda gone=directory: files.remove_tree(gone))  # type: ignore[misc]

    async def run(self, target: Target, shim: Shim, request: ExecRequest) -> ExecResult:
        """Run to the end. Raises Deadline, RuntimeFailed (`program_missing`), Absent, WrongState.

        A process left behind that holds the output is waited for `drain` seconds, then killed. After a
        deadline or a cancel nothing of the exec is left.
        """
        outputs = {Output.STDOUT: "out", Output.STDERR: "err"}
        # without a thread: the run directory is in memory, and a thread costs ten times more
        running = self.begin(target, shim, outputs.values())
        collectors: dict[Output, _Collector] = {}
        try:
            try:
                for output, name in outputs.items():
                    collectors[output] = _Collector(running.path(name), request.output_limit)
                code = await self._supervise(running, request, collectors)
            finally:
                for collector in collectors.values():
                    await collector.close()
            return ExecResult(
                stdout=bytes(collectors[Output.STDOUT].kept),
                stderr=bytes(collectors[Output.STDERR].kept),
                exit_code=code,
            )
        finally:
            await to_the_end(self.forget(running))

    async def _supervise(
        self, running: Running, request: ExecRequest, collectors: Mapping[Output, _Collector]
    ) -> int:
        stdio = Stdio(stdout=str(running.path("out")), stderr=str(running.path("err")))
        waiting: asyncio.Task[Ended] | None = None
        try:
            async with asyncio.timeout(request.timeout):
                waiting = await self.start(running, {**request.process, "terminal": False}, stdio)
                for collector in collectors.values():
                    collector.start()
                ended = await asyncio.shield(waiting)
                if not await self._drained(collectors, self._drain):
                    await self.end_holders(running)
                    await self._drained(collectors, AFTERMATH)
        except TimeoutError:
            killed = await to_the_end(self._end(running, waiting))
            raise Deadline(
                f"exec in container {running.target.id}: no end within {request.timeout:g} s; "
                f"{killed} process{'' if killed == 1 else 'es'} killed"
            ) from None
        except BaseException:
            await to_the_end(self._end(running, waiting))
            raise
        return ended.code

    async def _end(self, running: Running, waiting: asyncio.Task[Ended] | None) -> int:
        """After this nothing of it lives."""
        if not running.pid and running.announced:
            await self._learn(running)
        killed = await self.end_tree(running)
        if waiting is not None:
            await asyncio.wait({waiting}, timeout=AFTERMATH)
            await _cancelled(waiting)
        return killed

    async def _learn(self, running: Running) -> None:
        """Which process there is, where nobody waited for the answer to Start: the shim goes on with it.

        Until it has answered there may be none yet, and one a moment later.
        """
        starting = running.starting
        if starting is not None:
            await asyncio.wait({starting}, timeout=_KILL_TIME)
            starting.cancel()
            (answer,) = await asyncio.gather(starting, return_exceptions=True)
            if isinstance(answer, int):
                running.pid = answer
                return
        with contextlib.suppress(CrispError):
            running.pid = (await running.shim.task.state(running.target.id, running.id)).pid

    async def _drained(self, collectors: Mapping[Output, _Collector], limit: float) -> bool:
        waiting = {collector.source.closed for collector in collectors.values()}
        if all(future.done() for future in waiting):
            return True
        _, pending = await asyncio.wait(waiting, timeout=limit)
        return not pending

    def _family(self, running: Running, pipes: frozenset[int]) -> list[ProcessRef]:
        """Its descendants, its session (whose number is the process's), and who holds its output."""
        table = processtree.read_table()
        target, shim = running.target, running.shim.process
        spared = {os.getpid(), 1, *([] if shim is None else [shim.pid])}
        if target.process is not None:
            spared.add(target.process.pid)
        found = processtree.members(table, {running.pid}, running.pid)
        if pipes and target.cgroup:
            found |= processtree.holders(set(self._cgroups.processes(target.cgroup)) & table.keys(), pipes)
        return [table[pid].reference for pid in found - spared]

    async def _kill(self, find: Callable[[], Iterable[ProcessRef]]) -> int:
        return await processtree.kill_all(find, io=self._io, timeout=_KILL_TIME)

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await in_executor(self._io, work)


class _Collector:
    """Reads a fifo to its end and keeps its first bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        self.kept = bytearray()
        self._limit = limit
        self.source = open_source(path)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """The writer has opened it: until then it would look ended."""
        self._task = asyncio.get_running_loop().create_task(self._read(), name="exec output")

    async def _read(self) -> None:
        while data := await self.source.read():
            room = self._limit - len(self.kept)
            if room > 0:
                self.kept += data[:room]

    async def close(self) -> None:
        self.source.close()
        if self._task is not None:
            await asyncio.wait({self._task})


def open_source(path: Path) -> Source:
    """The reading end of a fifo, before anybody writes to it; as large as a pipe may be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # the user's pages for pipes are used up: a smaller one does
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, CHUNK)
    return Source(descriptor)


def _retrieved(task: asyncio.Task[int]) -> None:
    """A failure that nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()


async def _cancelled(task: asyncio.Task[Ended]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
