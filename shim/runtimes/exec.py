"""Running a process beside a container's own to its end, with its output: ExecSync.

A runtime's `exec` with two pipes and a deadline; what of it must be killed is known in `launch.py`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from oci.errors import Deadline
from shim.lifecycle.undo import to_the_end
from shim.process import OutputReader
from shim.runtimes.driver import ExecRequest, ExecResult, Target
from shim.runtimes.launch import AFTERMATH, Launch, Launches


class _Exec(Launch):
    """One exec under way, whose output is collected."""

    def __init__(self, target: Target, base: Path, limit: int) -> None:
        super().__init__(target, base)
        self.out = OutputReader(limit)
        try:
            self.err = OutputReader(limit)
        except BaseException:
            self.out.close()
            raise
        self.pipes = frozenset((self.out.inode(), self.err.inode()))

    def close(self) -> None:
        super().close()
        self.out.close()
        self.err.close()


class Execs:
    """`drain` is how many seconds output is waited for that a process left behind holds open."""

    def __init__(self, launches: Launches, *, drain: float) -> None:
        self._launches = launches
        self._drain = drain

    async def run(self, target: Target, request: ExecRequest) -> ExecResult:
        """Run to the end. Raises Deadline, RuntimeFailed (`program_missing`), Absent, WrongState, BadInput.

        A process left behind that holds the output is waited for `drain` seconds, then killed: the call has
        an end, and a runtime that copies the output (runc) ends only with its pipes. What closed its output
        is left alone. After a deadline or a cancel nothing of the exec is left.
        """
        running = _Exec(target, self._launches.place(target), request.output_limit)
        try:
            await self._launches.begin(running, {**request.process, "terminal": False})
            status = await self._supervise(running, request.timeout)
            stdout, stderr = bytes(running.out), bytes(running.err)
            await self._launches.check(running, status, stderr)
            return ExecResult(stdout=stdout, stderr=stderr, exit_code=status)
        finally:
            await self._launches.forget(running)

    async def _supervise(self, running: _Exec, limit: float | None) -> int:
        """Start the runtime and wait as long as the call may last; its exit status."""
        child = await self._launches.spawn(running, stdout=running.out.write, stderr=running.err.write)
        running.out.start()
        running.err.start()
        exited = asyncio.ensure_future(child.exited())
        exited.add_done_callback(lambda _: running.ended.set())
        try:
            async with asyncio.timeout(limit):
                await running.ended.wait()
                if not await self._drained(running, exited, self._drain):
                    await self._launches.end_holders(running, child)
                    await self._drained(running, exited, AFTERMATH)
        except TimeoutError:
            killed = await to_the_end(self._launches.end_tree(running, child))
            raise Deadline(
                f"exec in container {running.target.id}: no end within {limit:g} s; "
                f"{killed} process{'' if killed == 1 else 'es'} killed"
            ) from None
        except BaseException:
            await to_the_end(self._launches.end_tree(running, child))
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
