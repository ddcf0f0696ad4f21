"""A process that a runtime's `exec` starts beside a container's own: its files, watch, and end with its tree.

The pid file is what makes deadlines real: the process in the container is no child of ours, and outlives the
runtime that started it. Each exec has three small files in the run directory; one that is still there after a
restart names a process that nobody waits for any more, and `clear` ends it. What becomes of the output is
decided elsewhere (`exec.py`, `interactive.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from oci import commandline
from oci.commandline import Runtime
from oci.monitor import parse_pid
from shim import files, process
from shim.cgroups import Cgroups
from shim.kernel import pidfd
from shim.records import ProcessRef
from shim.runtimes import processtree
from shim.runtimes.driver import Target
from shim.runtimes.execgroups import ExecGroups

T = TypeVar("T")

_KILL_TIME: Final = 5.0
_CLOCK_SLACK: Final = 1.0
RUNTIME_FAILED: Final = 255  # the status of an exec that the runtime could not carry out, with a logged error
AFTERMATH: Final = 1.0
"""Seconds for the runtime to end and for pipes to close after everything that held them was killed."""


class Launch:
    """One exec under way. `pipes` are the inodes of pipes of ours that it was given."""

    def __init__(self, target: Target, base: Path) -> None:
        self.target = target
        self.group: int | None = None  # the cgroup of its own, see `execgroups.py`
        self._name(base)
        self.pipes: frozenset[int] = frozenset()
        self.ended = asyncio.Event()  # the process in the container, or the runtime, has ended
        self.begun = asyncio.Event()  # it is known whether there is or was such a process
        self.happened = False  # there is or was
        self.main: ProcessRef | None = None
        self.session = 0
        self._descriptor = -1
        self._unwatch: Callable[[], None] | None = None

    def _name(self, base: Path) -> None:
        self._base = base
        self.process_file = base.with_name(base.name + ".json")
        self.pid_file = base.with_name(base.name + ".pid")
        self.log = base.with_name(base.name + ".log")
        self.inner_file = base.with_name(base.name + ".inner")

    def enter(self, group: int) -> None:
        """Have a cgroup, which the files are named after: a restart finds it by them."""
        self.group = group
        self._name(self._base.with_name(f"{self._base.name}-{group}"))

    def started(self) -> None:
        """The pid file is complete: watch the process itself, since a runtime may wait for its pipes too."""
        with contextlib.suppress(OSError):
            pid = parse_pid(self.pid_file.read_bytes())
            entry = None if pid is None else processtree.read_entry(pid)
            if self.main is not None or pid is None:
                return
            self.happened = True
            self.begun.set()
            if entry is None:
                self.ended.set()
                return
            # A runtime of sandboxes names itself, who lives in our own session, as all that we start does.
            session = entry.session if entry.session != os.getsid(0) else 0
            self.main, self.session = entry.reference, session
            descriptor = pidfd.open_process(self.main)
            if descriptor is None:
                self.ended.set()
                return
            self._descriptor = descriptor
            self._unwatch = pidfd.on_exit(descriptor, self.ended.set)

    def close(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def unlink(self) -> None:
        torn = self.pid_file.with_name(f".{self.pid_file.name}")  # runc was killed while writing it
        for path in (self.process_file, self.pid_file, self.log, self.inner_file, torn):
            path.unlink(missing_ok=True)


class Launches:
    """Everything that was started by `exec` and has not ended."""

    def __init__(
        self, *, runtime: Runtime, directory: Path, cgroups: Cgroups, groups: ExecGroups, io: Executor
    ) -> None:
        self._runtime = runtime
        self._directory = directory
        self._cgroups = cgroups
        self._groups = groups
        self._io = io
        self._running: dict[str, Launch] = {}
        self.fit: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda process_: process_
        # Of runtimes whose processes live in a sandbox: kills one by its number in there.
        self.inner_ended: Callable[[Target, int], Awaitable[None]] | None = None

    def arrived(self, name: str) -> None:
        """A file of this name is complete in the directory of execs."""
        running = self._running.get(name)
        if running is not None:
            running.started()

    def lost(self) -> None:
        """The kernel dropped events: look for every pid file that is waited for."""
        for running in self._running.values():
            running.started()

    def place(self, target: Target) -> Path:
        """What the names of a new exec's files begin with."""
        return self._directory / f"{target.id}.{secrets.token_hex(6)}"

    async def begin(self, running: Launch, process_: Mapping[str, Any]) -> None:
        """Write the process file and listen for the pid file. `forget` is owed from here on."""
        group = self._groups.take(running.target.cgroup)
        if group is not None:
            running.enter(group)
        self._running[running.pid_file.name] = running
        document = json.dumps(self.fit(process_)).encode("ascii")
        # Here and below without a thread: the run directory is in memory, and a thread costs ten times more.
        files.write_atomic(running.process_file, document)

    @property
    def directory(self) -> Path:
        """Where the files of execs are."""
        return self._directory

    async def spawn(
        self,
        running: Launch,
        *,
        stdin: int | None = None,
        stdout: int | None,
        stderr: int | None,
        console: Path | None = None,
    ) -> process.Child:
        """Start the runtime; `console` is the socket that gets the terminal.

        Raises CommandMissing, BadInput, Full.
        """
        argv = commandline.execute(
            self._runtime,
            running.log,
            running.target.id,
            process=running.process_file,
            pid_file=running.pid_file,
            cgroup="" if running.group is None else self._groups.argument(running.group),
            console=console,
            inner=None if self.inner_ended is None else running.inner_file,
        )
        return await process.spawn(argv, stdin=stdin, stdout=stdout, stderr=stderr)

    async def check(self, running: Launch, status: int, stderr: bytes = b"") -> None:
        """Whether there was a process whose status this is. Raises what kept the runtime from starting it."""
        started, words = self._findings(running)
        # youki writes the pid file before it knows whether there is such a program
        if not started or status < 0 or (words and status == RUNTIME_FAILED):
            said = words or commandline.plain_words(stderr) or "the process was not started"
            raise commandline.failure(self._runtime, running.target.id, "exec", said, status=status)

    async def forget(self, running: Launch) -> None:
        """Stop watching and remove the files."""
        self._running.pop(running.pid_file.name, None)
        running.close()
        running.unlink()
        if running.group is not None:
            self._groups.give_back(running.target.cgroup, running.group)
            running.group = None

    async def clear(self, target: Target) -> None:
        """End what execs before a restart have left in the container."""
        roots, groups = await self._blocking(lambda: self._leftovers(target))
        for root, session in roots:
            await self._end_leftover(target, root, session)
        for group in groups:
            await processtree.kill_all(
                partial(self._groups.members, target.cgroup, group),
                io=self._io,
                timeout=_KILL_TIME,
                together=partial(self._groups.kill, target.cgroup, group),
            )

    def gone(self, target: Target) -> None:
        """The container is no more."""
        self._groups.forget(target.cgroup)

    async def _end_leftover(self, target: Target, root: ProcessRef, session: int) -> None:
        """`session` 0 says that `root` is a runtime, which has not yet said what it started."""
        pipes: frozenset[int] = frozenset()
        if not session:
            process.signal(root, signal.SIGSTOP)
            pipes = await self._blocking(lambda: processtree.pipes_of(root.pid))
        await processtree.kill_all(
            lambda: self._tree(target, {root.pid}, session, pipes), io=self._io, timeout=_KILL_TIME
        )

    async def end_holders(self, running: Launch, child: process.Child) -> None:
        """Kill what the ended process left behind with the output open, and nothing else."""
        pipes = await self._blocking(lambda: running.pipes | processtree.pipes_of(child.pid))

        def find() -> Iterable[ProcessRef]:
            table = processtree.read_table()
            pids = self._inside(running.target, table, running.session) - {child.pid}
            return [table[pid].reference for pid in processtree.holders(pids, pipes)]

        await processtree.kill_all(find, io=self._io, timeout=_KILL_TIME)

    async def end_tree(self, running: Launch, child: process.Child) -> int:
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
                    async with asyncio.timeout(AFTERMATH):
                        await child.exited()
        finally:
            child.signal_group(signal.SIGKILL)
            await child.wait()
        killed += await self._kill_tree(running, roots - {child.pid}, pipes, runtime=0)
        if self.inner_ended is not None and (inside := _pid_in(running.inner_file)) is not None:
            await self.inner_ended(running.target, inside)
        return killed

    async def _kill_tree(
        self, running: Launch, roots: set[int], pipes: frozenset[int], *, runtime: int
    ) -> int:
        cgroup, group = running.target.cgroup, running.group

        def find() -> Iterable[ProcessRef]:
            found = set(self._tree(running.target, roots, running.session, pipes, runtime=runtime))
            if group is not None:
                found.update(self._groups.members(cgroup, group))
            return found

        def together() -> None:
            if group is not None:
                self._groups.kill(cgroup, group)

        return await processtree.kill_all(find, io=self._io, timeout=_KILL_TIME, together=together)

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

    def _findings(self, running: Launch) -> tuple[bool, str]:
        """Whether the process was started at all, and the last error in the runtime's log."""
        words = ""
        with contextlib.suppress(OSError):
            words = commandline.parse_log(running.log.read_bytes())
        return running.pid_file.exists(), words

    def _leftovers(self, target: Target) -> tuple[list[tuple[ProcessRef, int]], set[int]]:
        """Processes of forgotten execs, each with its session, and their groups; their files are removed."""
        forgotten = [
            path
            for path in self._directory.glob(f"*{target.id}.*")
            if path.with_suffix(".pid").name.removeprefix(".") not in self._running
        ]
        if not forgotten:
            return [], set()
        inside = set(self._cgroups.processes(target.cgroup)) if target.cgroup else set()
        found = []
        groups: set[int] = set()
        for path in sorted(forgotten):  # .json comes before .pid
            if path.suffix == ".json":
                number = path.stem.rpartition(".")[2].partition("-")[2]
                groups |= {int(number)} if number.isdecimal() else set()
                entry = self._started(path.with_suffix(".pid"), inside)
                if entry is not None:
                    found.append((entry.reference, entry.session))
                else:
                    found += [(ref, 0) for ref in processtree.with_argument(f"--process={path}")]
            path.unlink(missing_ok=True)
        return found, groups

    def _started(self, pid_file: Path, inside: set[int]) -> processtree.Entry | None:
        """The container's process that a pid file of an earlier life names, None when it is gone."""
        try:
            pid, written = parse_pid(pid_file.read_bytes()), pid_file.stat().st_mtime
        except OSError:
            return None
        entry = processtree.read_entry(pid) if pid is not None and pid in inside else None
        # a process that began after the file was written only has the number of the exec's
        return entry if entry is not None and processtree.began(entry) <= written + _CLOCK_SLACK else None

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, work)


def _pid_in(path: Path) -> int | None:
    try:
        return parse_pid(path.read_bytes())
    except OSError:
        return None
