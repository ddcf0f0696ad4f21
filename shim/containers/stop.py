"""StopContainer: the stop signal, the grace, SIGKILL, and the certainty that nothing of it lives."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from oci.errors import BadInput, CrispError, Deadline
from oci.workload import ContainerId
from shim.containers.exits import Exits, record_exit
from shim.containers.lookup import has_process
from shim.containers.target import target
from shim.node import Node
from shim.records import ContainerRecord, ContainerState
from shim.runtimes.driver import Driver, Exit, Target

log = logging.getLogger(__name__)


class Stops:
    """Stops in progress: one signal each, and a deadline that later calls can only bring nearer."""

    def __init__(self) -> None:
        self._running: dict[ContainerId, _Stop] = {}

    def shorten(self, id_: ContainerId, deadline: float) -> None:
        """Let a stop of that container that runs end its grace at `deadline` (loop time) at the latest."""
        running = self._running.get(id_)
        if running is not None and deadline < running.deadline:
            running.deadline = deadline
            running.changed.set()

    def begin(self, id_: ContainerId, deadline: float) -> _Stop:
        running = _Stop(deadline)
        self._running[id_] = running
        return running

    def end(self, id_: ContainerId) -> None:
        del self._running[id_]


class _Stop:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.changed = asyncio.Event()


def signal_number(name: str) -> int:
    """The number of "SIGTERM", "TERM", "SIGRTMIN+3" or "15". Raises BadInput for what is no signal."""
    text = name.strip().upper().removeprefix("SIG")
    if text.isdigit() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    base, plus, offset = text.partition("+")
    if base == "RTMIN" and plus and offset.isdigit():
        number = signal.SIGRTMIN + int(offset)
    else:
        base, minus, offset = text.partition("-")
        if base == "RTMAX" and minus and offset.isdigit():
            number = signal.SIGRTMAX - int(offset)
        else:
            number = int(signal.Signals.__members__.get(f"SIG{text}", 0))  # those with two names too
    if not 0 < number <= signal.SIGRTMAX:
        raise BadInput(f"stop signal: {name!r} is not a signal of this system")
    return number


async def stop(node: Node, exits: Exits, stops: Stops, id_: ContainerId, *, grace: float) -> None:
    """End the container: `grace` seconds after its stop signal it is killed; 0 or less kills at once.

    Returns when the record is EXITED. A container that does not run is success. Raises Deadline, naming the
    process and where in the kernel it waits, when even SIGKILL does not end it.
    """
    stops.shorten(id_, asyncio.get_running_loop().time() + max(grace, 0))
    await node.operations.join(("stop container", id_), None, lambda: _stop(node, exits, stops, id_, grace))


async def _stop(node: Node, exits: Exits, stops: Stops, id_: ContainerId, grace: float) -> None:
    await exits.settle(id_)
    async with node.operations.exclusive(("container", id_)):
        record = node.store.containers.get(id_)  # a start that was under way has ended
    if record is None or not has_process(record):
        return
    running = stops.begin(id_, asyncio.get_running_loop().time() + max(grace, 0))
    try:
        driver = node.driver_of(record)
        of = target(node.paths, record)
        if grace > 0 and record.state is not ContainerState.UNKNOWN:
            # Beside the wait: a runtime that does not answer must not make the grace longer.
            signalling = asyncio.create_task(_signal(driver, of, signal_number(record.stop_signal)))
            try:
                if await _ended_in_time(exits, running, id_):
                    return
                if not signalling.done():
                    log.warning("a stop signal is not answered within the grace", extra={"container": id_})
            finally:
                signalling.cancel()
                await asyncio.wait({signalling})
        await driver.kill(of, signal.SIGKILL, everything=True)
        if await _ended_within(exits, id_, node.settings.containers.kill_timeout):
            return
        await _give_up(node, record)
    finally:
        stops.end(id_)


async def _signal(driver: Driver, of: Target, number: int) -> None:
    """It may have arrived all the same where the runtime refuses or does not answer, so nothing is raised."""
    try:
        await driver.kill(of, number)
    except CrispError as error:
        log.warning("a stop signal is not delivered", extra={"container": of.id, "error": str(error)})


async def _ended_in_time(exits: Exits, running: _Stop, id_: ContainerId) -> bool:
    while True:
        running.changed.clear()
        left = running.deadline - asyncio.get_running_loop().time()
        if left <= 0:
            return False
        ended = asyncio.ensure_future(exits.ended(id_))
        changed = asyncio.ensure_future(running.changed.wait())
        try:
            await asyncio.wait({ended, changed}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
                return True
        finally:
            ended.cancel()
            changed.cancel()


async def _ended_within(exits: Exits, id_: ContainerId, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await exits.ended(id_)
    except TimeoutError:
        return False
    return True


async def _give_up(node: Node, record: ContainerRecord) -> None:
    observed = await node.driver_of(record).observe(target(node.paths, record))
    if observed.process is None:
        # Nothing lives and nobody reported how it ended: UNKNOWN containers end like this.
        async with node.operations.exclusive(("container", record.id)):
            now = node.store.containers.get(record.id)
            if now is not None and has_process(now):
                await record_exit(node, now, observed.exit or Exit(code=None, finished_at=node.now()))
        return
    pid = observed.process.pid
    wait = await asyncio.to_thread(_kernel_wait, pid)
    seconds = node.settings.containers.kill_timeout
    raise Deadline(f"stop container {record.id}: process {pid} lives {seconds} s after SIGKILL, {wait}")


def _kernel_wait(pid: int) -> str:
    try:
        channel = Path(f"/proc/{pid}/wchan").read_text().strip()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "it ended just now"
    return f"state {state}, waiting in the kernel at {channel or '?'}"
