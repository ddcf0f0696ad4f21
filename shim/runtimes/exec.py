"""Running a process beside a container's own, to its end: `RUNTIME exec` with pipes, a pid file, a deadline.

The pid file is what makes deadlines real: the process in the container is no child of ours, and outlives the
runtime that started it. Each exec has three small files in the run directory; one that is still there after a
restart names a process that nobody waits for any more, and `clear` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, TypeVar

from oci import commandline
from oci.commandline import Runtime
from oci.errors import Deadline
from oci.monitor import parse_pid
from shim import files, process
from shim.cgroups import Cgroups
from shim.kernel import pidfd
from shim.lifecycle.undo import to_the_end
from shim.process import OutputReader
from shim.records import ProcessRef
from shim.runtimes import processtree
from shim.runtimes.driver import ExecRequest, ExecResult, Target

T = TypeVar("T")

_KILL_TIME: Final = 5.0
_CLOCK_SLACK: Final = 1.0
_AFTERMATH: Final = 1.0
"""Seconds for the runtime to end and for pipes to close after everything that held them was killed."""


class _Exec:
    """One exec under way."""

    def __init__(self, target: Target, base: Path, limit: int) -> None:
        self.target = target
        self.process_file = base.with_name(base.name + ".json")
        self.pid_file = base.with_name(base.name + ".pid")
        self.log = base.with_name(base.name + ".log")
        self.out = OutputReader(limit)
        try:
            self.err = OutputReader(limit)
        except BaseException:
            self.out.close()
            raise
        self.pipes: frozenset[int] = frozenset((self.out.inode(), self.err.inode()))
        self.ended = asyncio.Event()  # the process in the container, or the runtime, has ended
        self.main: ProcessRef | None = None
        self.session = 0
        self._descriptor = -1
        self._unwatch: Callable[[], None] | None = None

    def started(self) -> None:
        """The pid file is complete: watch the process itself, since a runtime may wait for its pipes too."""
        with contextlib.suppress(OSError):
            pid = parse_pid(self.pid_file.read_bytes())
            entry = None if pid is None else processtree.read_entry(pid)
            if self.main is not None or pid is None:
                return
            if entry is None:
                self.ended.set()
                return
            self.main, self.session = entry.reference, entry.session
            descriptor = pidfd.open_process(self.main)
            if descriptor is None:
                self.ended.set()
                return
            self._descriptor = descriptor
            self._unwatch = pidfd.on_exit(descriptor, self.ended.set)

    def close(self) -> None:
        self.out.close()
        self.err.close()
        if self._unwatch is not None:
            self._unwatch()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def unlink(self) -> None:
        torn = self.pid_file.with_name(f".{self.pid_file.name}")  # runc was killed while writing it
        for path in (self.process_file, self.pid_file, self.log, torn):
            path.unlink(missing_ok=True)


class Execs:
    """Everything that was started by `exec` and has not ended."""

    def __init__(
        self, *, runtime: Runtime, directory: Path, cgroups: Cgroups, io: Executor, drain: float
    ) -> None:
        self._runtime = runtime
        self._directory = directory
        self._cgroups = cgroups
        self._io = io
        self._drain = drain
        self._running: dict[str, _Exec] = {}

    def arrived(self, name: str) -> None:
        """A file of this name is complete in the directory of execs."""
        running = self._running.get(name)
        if running is not None:
            running.started()

    def lost(self) -> None:
        """The kernel dropped events: look for every pid file that is waited for."""
        for running in self._running.values():
            running.started()

    async def run(self, target: Target, request: ExecRequest) -> ExecResult:
        """Run to the end. Raises Deadline, RuntimeFailed (`program_missing`), Absent, WrongState, BadInput.

        A process left behind that holds the output is waited for `drain` seconds, then killed: the call has
        an end, and a runtime that copies the output (runc) ends only with its pipes. What closed its output
        is left alone. After a deadline or a cancel nothing of the exec is left.
        """
        running = _Exec(target, self._directory / f"{target.id}.{secrets.token_hex(6)}", request.output_limit)
        self._running[running.pid_file.name] = running
        try:
            document = json.dumps({**request.process, "terminal": False}).encode("ascii")
            # to its end even when cancelled: a file written after the removal below would stay
            await to_the_end(self._blocking(lambda: files.write_atomic(running.process_file, document)))
            status = await self._supervise(running, request.timeout)
            started, words = await self._blocking(lambda: self._findings(running))
            stdout, stderr = bytes(running.out), bytes(running.err)
            if not started or status < 0:
                said = words or commandline.plain_words(stderr) or "the process was not started"
                raise commandline.failure(self._runtime, target.id, "exec", said, status=status)
            return ExecResult(stdout=stdout, stderr=stderr, exit_code=status)
        finally:
            del self._running[running.pid_file.name]
            running.close()
            await to_the_end(self._blocking(running.unlink))

    async def clear(self, target: Target) -> None:
        """End what execs before a restart have left in the container."""
        left = await self._blocking(lambda: self._leftovers(target))
        for entry in left:
            await self._end_session(target, entry)

    async def _end_session(self, target: Target, entry: processtree.Entry) -> None:
        await processtree.kill_all(
            lambda: self._tree(target, {entry.pid}, entry.session, frozenset()),
            io=self._io,
            timeout=_KILL_TIME,
        )

    async def _supervise(self, running: _Exec, limit: float | None) -> int:
        """Start the runtime and wait as long as the call may last; its exit status."""
        argv = commandline.execute(
            self._runtime,
            running.log,
            running.target.id,
            process=running.process_file,
            pid_file=running.pid_file,
        )
        child = process.spawn(argv, stdout=running.out.write, stderr=running.err.write)
        running.out.start()
        running.err.start()
        exited = asyncio.ensure_future(child.exited())
        exited.add_done_callback(lambda _: running.ended.set())
        try:
            async with asyncio.timeout(limit):
                await running.ended.wait()
                if not await self._drained(running, exited, self._drain):
                    await self._end_holders(running, child)
                    await self._drained(running, exited, _AFTERMATH)
        except TimeoutError:
            killed = await to_the_end(self._end_tree(running, child))
            raise Deadline(
                f"exec in container {running.target.id}: no end within {limit:g} s; "
                f"{killed} process{'' if killed == 1 else 'es'} killed"
            ) from None
        except BaseException:
            await to_the_end(self._end_tree(running, child))
            raise
        finally:
            exited.cancel()
        status = child.reap() if exited.done() and not exited.cancelled() else await child.end(grace=0)
        running.out.take_rest()
        running.err.take_rest()
        return status

    async def _drained(self, running: _Exec, exited: asyncio.Future[None], limit: float) -> bool:
        waiting = {exited, running.out.closed, running.err.closed}
        if all(future.done() for future in waiting):
            return True
        _, pending = await asyncio.wait(waiting, timeout=limit)
        return not pending

    async def _end_holders(self, running: _Exec, child: process.Child) -> None:
        """Kill what the ended process left behind with the output open, and nothing else."""
        pipes = await self._blocking(lambda: running.pipes | processtree.pipes_of(child.pid))

        def find() -> Iterable[ProcessRef]:
            table = processtree.read_table()
            pids = self._inside(running.target, table, running.session) - {child.pid}
            return [table[pid].reference for pid in processtree.holders(pids, pipes)]

        await processtree.kill_all(find, io=self._io, timeout=_KILL_TIME)

    async def _end_tree(self, running: _Exec, child: process.Child) -> int:
        """Kill everything that the exec started, then the runtime."""
        child.signal(signal.SIGSTOP)  # so that it starts nothing while its children are looked for
        running.started()  # the pid file may be there and its event not yet
        pipes = await self._blocking(lambda: running.pipes | processtree.pipes_of(child.pid))
        roots = {child.pid} | ({running.main.pid} if running.main is not None else set())
        killed = 0
        try:
            killed += await self._kill_tree(running, roots, pipes, runtime=child.pid)
            if killed:
                # The runtime is the dead process's parent and must reap it: otherwise a zombie stays in the
                # container, whose first process may never reap what it did not start. Where nothing was
                # killed it may not go on, for it would start what it has not yet started.
                child.signal(signal.SIGCONT)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AFTERMATH):
                        await child.exited()
        finally:
            child.signal_group(signal.SIGKILL)
            await child.wait()
        return killed + await self._kill_tree(running, roots - {child.pid}, pipes, runtime=0)

    async def _kill_tree(
        self, running: _Exec, roots: set[int], pipes: frozenset[int], *, runtime: int
    ) -> int:
        return await processtree.kill_all(
            lambda: self._tree(running.target, roots, running.session, pipes, runtime=runtime),
            io=self._io,
            timeout=_KILL_TIME,
        )

    def _tree(
        self,
        target: Target,
        roots: set[int],
        session: int,
        pipes: frozenset[int],
        *,
        runtime: int = 0,
    ) -> list[ProcessRef]:
        table = processtree.read_table()
        found = processtree.members(table, roots, session)
        if pipes:
            found |= processtree.holders(self._inside(target, table, session), pipes)
        spared = {runtime, os.getpid(), 1}
        if target.process is not None:
            spared.add(target.process.pid)
        return [table[pid].reference for pid in found - spared if pid in table]

    def _inside(self, target: Target, table: dict[int, processtree.Entry], session: int) -> set[int]:
        """The container's processes; where its cgroup is not known, those of the exec's session."""
        if target.cgroup:
            return set(self._cgroups.processes(target.cgroup)) & table.keys()
        return processtree.members(table, (), session)

    def _findings(self, running: _Exec) -> tuple[bool, str]:
        """Whether the process was started at all, and the last error in the runtime's log."""
        words = ""
        with contextlib.suppress(OSError):
            words = commandline.parse_log(running.log.read_bytes())
        return running.pid_file.exists(), words

    def _leftovers(self, target: Target) -> list[processtree.Entry]:
        """The processes that the files of forgotten execs name; the files are removed."""
        inside = set(self._cgroups.processes(target.cgroup)) if target.cgroup else set()
        found = []
        for path in self._directory.glob(f"*{target.id}.*"):
            if path.with_suffix(".pid").name.removeprefix(".") in self._running:
                continue
            with contextlib.suppress(OSError):
                if path.suffix == ".pid" and not path.name.startswith("."):
                    pid = parse_pid(path.read_bytes())
                    entry = processtree.read_entry(pid) if pid in inside and pid is not None else None
                    # a process that began after the file was written only has the number of the exec's
                    if entry is not None and processtree.began(entry) <= path.stat().st_mtime + _CLOCK_SLACK:
                        found.append(entry)
                path.unlink()
        return found

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, work)
