"""The process that makes layers ready, `python -m shim.images.layer_worker`: it fetches, inflates, indexes.

Beside the daemon, so that this work takes neither the interpreter nor a processor from what answers; one for
all pulls of a node. It writes temporary files of the store and nothing else; what becomes of them is the
daemon's. Ends at once when the daemon closes the pipe or dies.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from oci.errors import CrispError, Internal
from shim.images.cancellation import Cancellation, Cancelled
from shim.images.fetching import Job
from shim.images.layer_messages import Ended, Event, Progress, line, read_frame
from shim.images.progress import LayerMeter, Phase
from shim.images.receive import write_all
from shim.images.routes import Routes
from shim.kernel import libc

NICE: Final = 10
"""Pods that start go first: whoever pulls waits for the network anyway."""

_MEMORY: Final = 2 << 30
_DEPTH: Final = 10_000  # a path may have 2048 directories
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_TELL_EVERY: Final = 0.1  # seconds between two reports of a job's bytes


class Output:
    """The pipe to the daemon, for any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def tell(self, number: int, event: Event) -> None:
        with self._lock:
            try:
                write_all(self._descriptor, line(number, event))
            except OSError:
                os._exit(1)  # nobody is left who could want anything


class Teller:
    """Tells the bytes of meters that have moved, not too often, and also when nothing moves them any more."""

    def __init__(self) -> None:
        self._moved: set[_Told] = set()
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def soon(self, meter: _Told) -> None:
        with self._lock:
            self._moved.add(meter)
        self._wanted.set()

    def _run(self) -> None:
        while self._wanted.wait():
            time.sleep(_TELL_EVERY)
            self._wanted.clear()
            with self._lock:
                moved, self._moved = self._moved, set()
            for meter in moved:
                meter.tell()


class _Told(LayerMeter):
    """A meter whose changes are told: a phase at once, bytes by the teller."""

    def __init__(self, number: int, output: Output, teller: Teller) -> None:
        self._number = number
        self._output = output
        self._teller = teller
        self._received = 0
        self.kept = 0
        self._phase = Phase.WAITING
        self.digest = ""
        self.total = 0

    @property
    def received(self) -> int:
        return self._received

    @received.setter
    def received(self, value: int) -> None:
        self._received = value
        self._teller.soon(self)

    @property
    def phase(self) -> Phase:
        return self._phase

    @phase.setter
    def phase(self, value: Phase) -> None:
        self._phase = value
        self.tell()

    def tell(self) -> None:
        """What comes after the job's end finds nobody, and does no harm."""
        self._output.tell(
            self._number,
            Progress(received=self._received, total=self.total, phase=self._phase, kept=self.kept),
        )


def run(
    number: int, job: Job, cancellation: Cancellation, meter: _Told, output: Output, routes: Routes
) -> None:
    """One job to its end, which is told."""
    event: Event
    try:
        event = job.run(cancellation, meter, routes)
        meter.tell()
    except Cancelled:
        event = Ended()
    except CrispError as failure:
        event = failure
    except Exception as failure:  # noqa: BLE001 - the last stop of every error of a thread
        event = Internal(f"{job.what}: {type(failure).__name__}: {failure}")
    output.tell(number, event)


def main(daemon: int) -> None:
    """Frames come on descriptor 0, events go to descriptor 1; `daemon` is the pid of who sends them."""
    libc.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != daemon:  # it died before: what it had sent must not be begun
        return
    libc.call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.nice(NICE)
    sys.setrecursionlimit(_DEPTH)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    output, routes, teller = Output(1), Routes(), Teller()
    running: dict[int, Cancellation] = {}
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        number, job = frame
        if job is None:
            if (cancellation := running.get(number)) is not None:
                cancellation.cancel()
            continue
        cancellation = running[number] = Cancellation()
        work = partial(run, number, job, cancellation, _Told(number, output, teller), output, routes)
        threading.Thread(target=_run_and_forget, args=(work, running, number), daemon=True).start()
    os._exit(0)  # threads that wait for a registry are not waited for


def _run_and_forget(work: Callable[[], None], running: dict[int, Cancellation], number: int) -> None:
    try:
        work()
    finally:
        del running[number]


if __name__ == "__main__":
    main(int(sys.argv[1]))
