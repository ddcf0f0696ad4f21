"""Exec with its streams in somebody's hands: pipes or a terminal, no limit of time, no memory of the output.

Nothing is read that nobody takes, so a slow client holds the process back, and the process its client. A
session that is closed before its end kills everything that it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
import time
import tty

from oci.errors import CrispError
from shim import process
from shim.kernel import terminal
from shim.lifecycle.undo import to_the_end
from shim.process import Child
from shim.runtimes.console import Console
from shim.runtimes.driver import Output, Size, StreamRequest, Target
from shim.runtimes.flow import Sink, Source, make_pipe
from shim.runtimes.launch import AFTERMATH, Launch, Launches


class ExecSession:
    """See `shim.runtimes.driver.Session`."""

    def __init__(
        self, launches: Launches, running: Launch, child: Child, ends: _Ends, *, drain: float
    ) -> None:
        self._launches = launches
        self._running = running
        self._child = child
        self._sources = ends.sources
        self._input = ends.input
        self._terminal = ends.terminal
        self._drain = drain
        self._entered = asyncio.Event()
        running.pipes = frozenset(source.inode() for source in self._sources.values() if ends.terminal < 0)
        self._work = asyncio.get_running_loop().create_task(self._supervise(), name="exec session")

    @property
    def outputs(self) -> frozenset[Output]:
        return frozenset(self._sources)

    async def read(self, output: Output) -> bytes:
        source = self._sources[output]
        # The runtime has the same pipes: until there is a process, what comes is its complaint, which
        # `wait` raises.
        await self._running.begun.wait()
        if not self._running.happened:
            source.close()
        return await source.read()

    async def write(self, data: bytes) -> None:
        if self._input is not None:
            await self._input.write(data)

    def end_input(self) -> None:
        if self._input is not None and self._terminal < 0:
            self._input.close()

    async def resize(self, size: Size) -> None:
        if self._terminal < 0:
            return
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetwinsize(self._terminal, (size.height, size.width))
        # This one is between the runtime and us; the process has another, whose size runc would take over at
        # a signal and crun 1.8 would not.
        await self._running.begun.wait()
        main = self._running.main
        if main is not None and process.alive(main):
            terminal.set_size(main.pid, width=size.width, height=size.height)

    async def wait(self) -> int:
        return await asyncio.shield(self._work)

    async def close(self) -> None:
        await to_the_end(self._entered.wait())  # cancelled before its first step it would end nothing
        self._work.cancel()
        with contextlib.suppress(asyncio.CancelledError, CrispError):
            await to_the_end(_outlived(self._work))

    async def _supervise(self) -> int:
        self._entered.set()
        running, child = self._running, self._child
        exited = asyncio.ensure_future(child.exited())
        exited.add_done_callback(lambda _: running.ended.set())
        try:
            await running.ended.wait()
            running.started()  # the pid file may be there and its event not yet
            running.begun.set()
            if not await self._drained(exited):
                await self._launches.end_holders(running, child)
                await asyncio.wait({exited}, timeout=AFTERMATH)
            status = child.reap() if exited.done() else await child.end(grace=0)
            await self._launches.check(running, status)
            return status
        except asyncio.CancelledError:
            await to_the_end(self._launches.end_tree(running, child))
            raise
        finally:
            exited.cancel()
            running.begun.set()
            for source in self._sources.values():
                source.close()
            if self._input is not None:
                self._input.close()
            if self._terminal >= 0:
                os.close(self._terminal)
                self._terminal = -1
            await self._launches.forget(running)

    async def _drained(self, exited: asyncio.Future[None]) -> bool:
        """Whether the output came to its end; not if nothing came for `drain` seconds though it was wanted.

        Output that waits because the client is slow is waited for as long as there is a client.
        """
        waiting = {exited, *(source.closed for source in self._sources.values())}
        left = self._drain
        while left > 0:
            _, pending = await asyncio.wait(waiting, timeout=left)
            if not pending:
                return True
            open_ = [source for source in self._sources.values() if not source.closed.done()]
            if all(source.starving for source in open_):
                now = time.monotonic()
                left = self._drain - min((now - source.since for source in open_), default=self._drain)
            else:
                left = self._drain
        return False


async def _outlived(work: asyncio.Future[int]) -> None:
    await asyncio.wait({work})
    if not work.cancelled():
        work.exception()  # taken: who closes does not ask how it ended


class _Ends:
    """Our ends of the streams; `theirs` are for the child, and closed when it has them."""

    def __init__(self, request: StreamRequest, *, console: bool) -> None:
        self.sources: dict[Output, Source] = {}
        self.input: Sink | None = None
        self.terminal = -1
        self.stdin: int | None = None
        self.outputs: dict[Output, int] = {}
        try:
            if not request.process.get("terminal"):
                self._open_pipes(request)
            elif not console:
                self._open_terminal(request)
        except BaseException:
            self.close()
            raise

    def _open_terminal(self, request: StreamRequest) -> None:
        master, slave = os.openpty()
        self.stdin = slave
        self.outputs = {Output.STDOUT: slave, Output.STDERR: slave}
        self.take_terminal(master, request)
        # The container has a terminal of its own, which echoes and edits; this one only carries bytes.
        tty.setraw(slave)
        if request.size is not None:
            termios.tcsetwinsize(slave, (request.size.height, request.size.width))

    def take_terminal(self, master: int, request: StreamRequest) -> None:
        """Own the master end of a terminal and carry its bytes."""
        self.sources[Output.STDOUT] = Source(master)
        self.terminal = os.dup(master)
        if request.stdin:
            self.input = Sink(os.dup(master))

    def _open_pipes(self, request: StreamRequest) -> None:
        for output in Output:
            if output in request.outputs:
                reading, self.outputs[output] = make_pipe()
                self.sources[output] = Source(reading)
        if request.stdin:
            self.stdin, writing = make_pipe()
            self.input = Sink(writing)

    def hand_over(self) -> None:
        """The child has its ends: drop ours of the same."""
        given = {*self.outputs.values(), *([self.stdin] if self.stdin is not None else [])}
        for descriptor in given:
            os.close(descriptor)
        self.outputs, self.stdin = {}, None

    def close(self) -> None:
        self.hand_over()
        for source in self.sources.values():
            source.close()
        if self.input is not None:
            self.input.close()
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1


async def open_session(
    launches: Launches, target: Target, request: StreamRequest, *, drain: float, console: bool
) -> ExecSession:
    """Start a process whose streams are the session's. Raises CommandMissing, BadInput, Full.

    `console`: this runtime hands over the terminal that it makes, in the foreground too. What the runtime
    refuses, the session's `wait` raises.
    """
    running = Launch(target, launches.place(target))
    try:
        spec = dict(request.process)
        if spec.get("terminal") and request.size is not None:
            spec["consoleSize"] = {"height": request.size.height, "width": request.size.width}
        await launches.begin(running, spec)
        ends = _Ends(request, console=console)
        try:
            child = await _start(launches, running, request, ends)
        except BaseException:
            ends.close()
            raise
        ends.hand_over()
    except BaseException:
        await launches.forget(running)
        raise
    return ExecSession(launches, running, child, ends, drain=drain)


async def _start(launches: Launches, running: Launch, request: StreamRequest, ends: _Ends) -> Child:
    if ends.outputs or not request.process.get("terminal"):
        return await launches.spawn(
            running,
            stdin=ends.stdin,
            stdout=ends.outputs.get(Output.STDOUT),
            stderr=ends.outputs.get(Output.STDERR),
        )
    with contextlib.closing(Console(launches.directory)) as console:
        child = await launches.spawn(running, stdout=None, stderr=None, console=console.path)
        try:
            master = await console.receive(child.exited())
            if master is not None:
                ends.take_terminal(master, request)
        except BaseException:
            await to_the_end(launches.end_tree(running, child))
            raise
    return child
