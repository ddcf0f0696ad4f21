"""The daemon's end of the process that makes layers ready (`layer_worker.py`).

There is one while layers are wanted and a little longer. Whoever cancels ends his job alone; a process that
dies takes its jobs with it, and the next one gets another. Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

from oci.errors import CrispError, Internal
from shim import process
from shim.images.checking import Checked, CheckLayer
from shim.images.fetching import Job
from shim.images.layer_messages import Ended, Event, Progress, frame, read_line
from shim.images.layout import Layout
from shim.images.progress import LayerMeter
from shim.images.receive import Received, write_all
from shim.images.threads import Threads

log = logging.getLogger(__name__)

IDLE: Final = 0.5
"""Seconds that a process is kept when no pull is under way: pods of one moment share it."""

_PATIENCE: Final = 1.5
"""Seconds that a cancelled caller waits for his job to clean up: less than the 2 s of a pull's end."""

_CODE: Final = Path(__file__).resolve().parents[2]
_CHUNK: Final = 1 << 16
_WORDS: Final = 64 << 10  # bytes of standard error that are kept: a traceback


_Result = Received | Checked | None  # None: cancelled


class _Worker:
    """One process: its pipes and its jobs."""

    def __init__(
        self, child: process.Child, jobs_to: int, events_from: int, words: process.OutputReader
    ) -> None:
        self.child = child
        self.jobs: dict[int, tuple[asyncio.Future[_Result], LayerMeter]] = {}
        self.made: set[Path] = set()  # what its callers have by now
        self.idle: asyncio.TimerHandle | None = None
        self.sending = asyncio.Lock()
        self._jobs_to = jobs_to
        self._events_from = events_from
        self._words = words
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(events_from, self._on_readable)

    async def send(self, threads: Threads, data: bytes) -> None:
        """In a thread, since a process that starts does not read yet. Whether it lives `_watch` tells."""
        async with self.sending:
            if self._jobs_to >= 0:
                with contextlib.suppress(BrokenPipeError):
                    await threads.do(write_all, self._jobs_to, data)

    def finish(self) -> None:
        """Have it end: there are no more jobs."""
        if self._jobs_to >= 0:
            os.close(self._jobs_to)
            self._jobs_to = -1

    def close(self) -> str:
        """It has ended: read what it has said, and return its last words."""
        self.finish()
        if self.idle is not None:
            self.idle.cancel()
        while self._on_readable():
            pass
        self._loop.remove_reader(self._events_from)
        os.close(self._events_from)
        self._words.take_rest()
        return bytes(self._words).decode("utf-8", "replace").strip()

    def _on_readable(self) -> bool:
        try:
            data = os.read(self._events_from, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._events_from)
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for text in lines:
            try:
                number, event = read_line(text)
            except ValueError as error:
                log.error("the process for layers said something else", extra={"error": str(error)})
                self.child.signal(9)
                return False
            self._take(number, event)
        return True

    def _take(self, number: int, event: Event) -> None:
        if number not in self.jobs:
            return
        future, meter = self.jobs[number]
        if isinstance(event, Progress):
            meter.received, meter.phase, meter.kept = event.received, event.phase, event.kept
            meter.total = event.total or meter.total
            return
        del self.jobs[number]
        if isinstance(event, CrispError):
            future.set_exception(event)
            future.exception()  # seen: the caller may be gone
        elif isinstance(event, Ended):
            future.set_result(None)
        else:
            if isinstance(event, Received):
                self.made |= {event.tar, event.index, *((event.blob,) if event.blob is not None else ())}
            future.set_result(event)


class LayerProcess:
    """Runs jobs."""

    def __init__(self, layout: Layout, threads: Threads, *, idle: float = IDLE) -> None:
        self._layout = layout
        self._threads = threads
        self._idle = idle
        self._numbers = count(1)
        self._coming = 0  # how many have said that jobs of theirs will come
        self._starting: asyncio.Task[_Worker] | None = None
        self._watching: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """Jobs will come meanwhile: the process is started now, and stays."""
        self._prepare()
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            if (worker := self._current()) is not None:
                self._rest(worker)

    def _prepare(self) -> None:
        """Start the process if there is none."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
            self._starting.add_done_callback(self._started)

    async def run(self, job: Job, meter: LayerMeter) -> Received:
        """The layer, whose temporary files are the caller's. Cancelled, it leaves nothing.

        Raises what the job raises (CrispError), and Internal when the process dies.
        """
        received = await self._run(job, meter)
        assert isinstance(received, Received)
        return received

    async def check(self, job: CheckLayer, meter: LayerMeter) -> Checked:
        """What is wrong with a stored layer. Raises Internal when the process dies."""
        checked = await self._run(job, meter)
        assert isinstance(checked, Checked)
        return checked

    async def _run(self, job: Job, meter: LayerMeter) -> Received | Checked:
        worker = await self._worker()
        number = next(self._numbers)
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        worker.jobs[number] = future, meter
        try:
            await worker.send(self._threads, frame(number, job))
            received = await asyncio.shield(future)
            if received is None:
                raise asyncio.CancelledError
            return received
        except BaseException:  # a cancel, or the job could not be sent
            if not future.done():
                await self._abandon(worker, number, future)
            await self._discard(future)
            raise
        finally:
            self._rest(worker)

    async def close(self) -> None:
        """End the process; jobs are cancelled before."""
        if self._starting is not None:
            with contextlib.suppress(CrispError):
                (await asyncio.shield(self._starting)).finish()
        await asyncio.gather(*self._watching, return_exceptions=True)

    async def _worker(self) -> _Worker:
        """A process that takes jobs."""
        self._prepare()
        assert self._starting is not None
        worker = await asyncio.shield(self._starting)
        if worker.idle is not None:
            worker.idle.cancel()
            worker.idle = None
        return worker

    def _started(self, starting: asyncio.Task[_Worker]) -> None:
        if starting.cancelled() or starting.exception() is not None:
            if self._starting is starting:
                self._starting = None
            return
        watching = asyncio.ensure_future(self._watch(starting))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        self._rest(starting.result())

    async def _start(self) -> _Worker:
        with contextlib.ExitStack() as stack:
            jobs_from, jobs_to = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, jobs_from)
            undo = contextlib.ExitStack()
            undo.callback(os.close, jobs_to)
            events_from, events_to = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, events_to)
            undo.callback(os.close, events_from)
            os.set_blocking(events_from, False)
            words = process.OutputReader(_WORDS)
            undo.callback(words.close)
            with undo:
                child = await process.spawn(
                    [sys.executable, "-P", "-s", "-m", "shim.images.layer_worker", str(os.getpid())],
                    env={
                        "PYTHONPATH": str(_CODE),
                        "LC_ALL": "C.UTF-8",
                        "MALLOC_ARENA_MAX": "2",  # a pool of freed memory for each thread would be too many
                    },
                    stdin=jobs_from,
                    stdout=events_to,
                    stderr=words.write,
                )
                words.start()
                undo.pop_all()
            return _Worker(child, jobs_to, events_from, words)

    async def _watch(self, starting: asyncio.Task[_Worker]) -> None:
        """Wait for the end of the process, whoever brings it about, and end its jobs."""
        worker = starting.result()
        status = await worker.child.wait()
        if self._starting is starting:
            self._starting = None
        words = worker.close()
        try:
            await self._threads.do(_remove_rest, self._layout, worker)
        except (OSError, CrispError) as failure:  # the next start clears it; who waits must be told now
            log.warning("what a process for layers was at stays", extra={"reason": str(failure)})
        for future, _ in worker.jobs.values():
            future.set_exception(
                Internal(f"the process that makes layers ready ended with status {status}: {words[-1000:]}")
            )
            future.exception()
        worker.jobs.clear()
        if status:
            log.warning("the process for layers ended", extra={"status": status, "words": words[-4000:]})

    async def _abandon(self, worker: _Worker, number: int, future: asyncio.Future[_Result]) -> None:
        """Cancel a job and wait a little; what it makes too late goes."""
        try:
            await worker.send(self._threads, frame(number, None))
            await asyncio.wait({future}, timeout=_PATIENCE)
        finally:
            if not future.done():
                future.add_done_callback(self._late)

    def _late(self, future: asyncio.Future[_Result]) -> None:
        discarding = asyncio.ensure_future(self._discard(future))
        self._watching.add(discarding)
        discarding.add_done_callback(self._watching.discard)

    async def _discard(self, future: asyncio.Future[_Result]) -> None:
        if future.done() and future.exception() is None and isinstance(received := future.result(), Received):
            await self._threads.do(received.discard)

    def _rest(self, worker: _Worker) -> None:
        """End the process when nothing comes for a while."""
        if worker.jobs or self._coming or worker.idle is not None:
            return
        worker.idle = asyncio.get_running_loop().call_later(self._idle, self._retire, worker)

    def _retire(self, worker: _Worker) -> None:
        worker.idle = None
        if not worker.jobs and not self._coming:
            if self._current() is worker:
                self._starting = None
            worker.finish()

    def _current(self) -> _Worker | None:
        starting = self._starting
        if (
            starting is None
            or not starting.done()
            or starting.cancelled()
            or starting.exception() is not None
        ):
            return None
        return starting.result()


def _remove_rest(layout: Layout, worker: _Worker) -> None:
    """What a process that has ended was at."""
    for path in layout.of_process(worker.child.pid):
        if path not in worker.made:
            path.unlink(missing_ok=True)
