"""Exec through a shim with its streams in somebody's hands: fifos, no limit of time, no memory of the output.

Nothing is read that nobody takes, so a slow client holds the process back, and the process its client. A
session that is closed before its end kills everything that it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from oci.errors import CrispError
from shim.lifecycle.undo import to_the_end
from shim.runtimes.driver import Output, Session, Size, StreamRequest, Target
from shim.runtimes.flow import Sink, Source
from shim.runtimes.shimv2.execs import AFTERMATH, Execs, Running, open_source
from shim.runtimes.shimv2.shims import Shim
from shim.runtimes.shimv2.task import Ended, Stdio
from shim.threads import in_thread

_NAMES = {Output.STDOUT: "out", Output.STDERR: "err"}


class ExecSession:
    """See `shim.runtimes.driver.Session`."""

    def __init__(
        self,
        execs: Execs,
        running: Running,
        waiting: asyncio.Task[Ended],
        ends: _Ends,
        *,
        drain: float,
    ) -> None:
        self._execs = execs
        self._running = running
        self._waiting = waiting
        self._sources = ends.sources
        self._input = ends.input
        self._terminal = ends.terminal
        self._drain = drain
        loop = asyncio.get_running_loop()
        self._unwanted = ends.unwanted
        self._drops = [loop.create_task(_drop(source), name="unwanted output") for source in ends.unwanted]
        self._entered = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._work = loop.create_task(self._supervise(), name="exec session")

    @property
    def outputs(self) -> frozenset[Output]:
        return frozenset(self._sources)

    async def read(self, output: Output) -> bytes:
        return await self._sources[output].read()

    async def write(self, data: bytes) -> None:
        if self._input is not None:
            await self._input.write(data)

    def end_input(self) -> None:
        if self._input is None or self._terminal or self._closing is not None:
            return
        # Ours is for reading too. What nobody has read is lost with the last end, so another one is opened.
        try:
            held = os.open(self._running.path("in"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # no descriptor left, or the process and its files have gone
            held = -1
        self._input.close()
        self._closing = asyncio.get_running_loop().create_task(self._close_input(held), name="end of input")

    async def _close_input(self, held: int) -> None:
        running = self._running
        if held >= 0:
            try:
                await self._have_reader(running.path("in"))
            finally:
                os.close(held)
        # The shim has a writing end of its own, which only this closes.
        with contextlib.suppress(CrispError):
            await running.shim.task.close_input(running.target.id, running.id)

    async def _have_reader(self, fifo: Path) -> None:
        """Wait until the shim reads, or the process has ended: shims open the input behind their answer."""

        def open_() -> None:
            with contextlib.suppress(OSError):
                os.close(os.open(fifo, os.O_WRONLY | os.O_CLOEXEC))  # which waits for one (fifo(7))

        opening = asyncio.ensure_future(in_thread(open_))
        try:
            await asyncio.wait({opening, self._waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not opening.done():
                with contextlib.suppress(OSError):
                    os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            await to_the_end(opening)

    async def resize(self, size: Size) -> None:
        if not self._terminal:
            return
        running = self._running
        with contextlib.suppress(CrispError):  # it may have ended
            await running.shim.task.resize(
                running.target.id, running.id, width=size.width, height=size.height
            )

    async def wait(self) -> int:
        return await asyncio.shield(self._work)

    async def close(self) -> None:
        await to_the_end(self._entered.wait())  # cancelled before its first step it would end nothing
        self._work.cancel()
        with contextlib.suppress(asyncio.CancelledError, CrispError):
            await to_the_end(_outlived(self._work))

    async def _supervise(self) -> int:
        self._entered.set()
        running = self._running
        try:
            ended = await asyncio.shield(self._waiting)
            if not await self._drained():
                await self._execs.end_holders(running)
                if left := self._open():
                    await asyncio.wait(left, timeout=AFTERMATH)
            return ended.code
        except asyncio.CancelledError:
            await to_the_end(self._execs.end_tree(running))
            await asyncio.wait({self._waiting}, timeout=AFTERMATH)
            raise
        finally:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
            if self._closing is not None:
                await asyncio.gather(self._closing, return_exceptions=True)
            for source in [*self._sources.values(), *self._unwanted]:
                source.close()
            await asyncio.gather(*self._drops)
            if self._input is not None:
                self._input.close()
            await to_the_end(self._execs.forget(running))

    def _open(self) -> set[asyncio.Future[None]]:
        return {source.closed for source in self._sources.values() if not source.closed.done()}

    async def _drained(self) -> bool:
        """Whether the output came to its end; not if nothing came for `drain` seconds though it was wanted.

        Output that waits because the client is slow is waited for as long as there is a client.
        """
        left = self._drain
        while left > 0:
            waiting = self._open()
            if not waiting:
                return True
            await asyncio.wait(waiting, timeout=left)
            open_ = [source for source in self._sources.values() if not source.closed.done()]
            if open_ and all(source.starving for source in open_):
                now = time.monotonic()
                left = self._drain - min(now - source.since for source in open_)
            else:
                left = self._drain
        return not self._open()


async def _outlived(work: asyncio.Future[int]) -> None:
    await asyncio.wait({work})
    if not work.cancelled():
        work.exception()  # taken: who closes does not ask how it ended


async def _drop(source: Source) -> None:
    while await source.read():
        pass


class RefusedSession:
    """A process that the runtime would not start: its streams are at their end, and `wait` says why."""

    def __init__(self, outputs: frozenset[Output], refusal: CrispError) -> None:
        self.outputs = outputs
        self._refusal = refusal

    async def read(self, output: Output) -> bytes:
        return b""

    async def write(self, data: bytes) -> None:
        pass

    def end_input(self) -> None:
        pass

    async def resize(self, size: Size) -> None:
        pass

    async def wait(self) -> int:
        raise self._refusal

    async def close(self) -> None:
        pass


class _Ends:
    """Our ends of the streams."""

    def __init__(self, running: Running, request: StreamRequest) -> None:
        self.terminal = bool(request.process.get("terminal"))
        self.sources: dict[Output, Source] = {}
        self.unwanted: list[Source] = []
        self.input: Sink | None = None
        try:
            for output in given(request):
                source = open_source(running.path(_NAMES[output]))
                if output in wanted(request):
                    self.sources[output] = source
                else:
                    self.unwanted.append(source)
            if request.stdin:
                # also for reading: a fifo that nobody reads yet cannot be opened only for writing
                flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
                self.input = Sink(os.open(running.path("in"), flags))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for source in [*self.sources.values(), *self.unwanted]:
            source.close()
        if self.input is not None:
            self.input.close()


def given(request: StreamRequest) -> list[Output]:
    """The outputs that get a fifo: without a terminal both, since runc's shim starts nothing with one."""
    return [Output.STDOUT] if request.process.get("terminal") else list(Output)


def wanted(request: StreamRequest) -> list[Output]:
    """The outputs that somebody reads; a terminal has one."""
    if request.process.get("terminal"):
        return [Output.STDOUT]
    return [output for output in Output if output in request.outputs]


async def open_session(
    execs: Execs, target: Target, shim: Shim, request: StreamRequest, *, drain: float
) -> Session:
    """Start a process whose streams are the session's. What the runtime refuses, its `wait` raises."""
    names = [_NAMES[output] for output in given(request)] + (["in"] if request.stdin else [])
    running = execs.begin(target, shim, names)
    try:
        spec = dict(request.process)
        terminal = bool(spec.get("terminal"))
        if terminal and request.size is not None:
            spec["consoleSize"] = {"height": request.size.height, "width": request.size.width}
        ends = _Ends(running, request)
        try:
            paths = {name: str(running.path(name)) for name in names}
            stdio = Stdio(
                stdin=paths.get("in", ""),
                stdout=paths.get("out", ""),
                stderr=paths.get("err", ""),
                terminal=terminal,
            )
            waiting = await execs.start(running, spec, stdio)
        except BaseException:
            ends.close()
            raise
    except BaseException as error:
        await to_the_end(execs.forget(running))
        if isinstance(error, CrispError):
            return RefusedSession(frozenset(wanted(request)), error)
        raise
    session = ExecSession(execs, running, waiting, ends, drain=drain)
    if terminal and request.size is not None:
        await session.resize(request.size)
    return session
