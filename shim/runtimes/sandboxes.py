"""What a runtime with a sandbox a pod does beside its containers: ports of the sandbox, and what it leaves.

Known of a runtime by its quirks (`port_forward`, `root_mounts`); used by whatever drives it.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from oci import commandline
from oci.commandline import Runtime
from oci.errors import Absent, Deadline
from oci.workload import PodId
from shim import process
from shim.kernel import mount
from shim.lifecycle.undo import to_the_end
from shim.runtimes.verbs import take_log
from shim.threads import in_executor

_DIAL_TIME: Final = 10.0


class Forwards:
    """Connections by the runtime's verb `port-forward`; they end with the daemon.

    `directory` has sockets and logs of calls. It must be there, and its path short (unix(7)).
    """

    def __init__(self, runtime: Runtime, *, directory: Path, io: Executor) -> None:
        self._runtime = runtime
        self._directory = directory
        self._io = io
        self._ending: set[asyncio.Task[None]] = set()

    async def dial(self, pod: PodId, port: int) -> socket.socket:
        """The runtime connects one port of the sandbox to a socket of ours. Raises Deadline, Absent."""
        path = self._directory / f"f{secrets.token_hex(6)}"
        words = path.with_suffix(".log")
        loop = asyncio.get_running_loop()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        try:
            listener.bind(str(path))
            listener.listen(1)
            argv = commandline.port_forward(self._runtime, words, pod, stream=path, port=port)
            child = await process.spawn(argv)
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            ending = asyncio.ensure_future(child.exited())
            try:
                done, _ = await asyncio.wait(
                    {accepting, ending}, timeout=_DIAL_TIME, return_when=asyncio.FIRST_COMPLETED
                )
            except BaseException:
                accepting.cancel()
                await to_the_end(child.end(grace=0))
                raise
            finally:
                ending.cancel()
            if accepting not in done:
                accepting.cancel()
                await to_the_end(child.end(grace=0))
                if not done:
                    raise Deadline(f"port {port} of pod {pod}: no connection within {_DIAL_TIME:g} s")
                said = await in_executor(self._io, lambda: take_log(words))
                raise Absent(f"port {port} of pod {pod}: {said or 'nothing listens there'}")
            connection, _ = accepting.result()
            reaping = loop.create_task(_reap(child))
            self._ending.add(reaping)
            reaping.add_done_callback(self._ending.discard)
            return connection
        finally:
            listener.close()
            path.unlink(missing_ok=True)
            words.unlink(missing_ok=True)

    async def close(self) -> None:
        for each in self._ending:
            each.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)


def tidy(root: Path, names: Iterable[str]) -> None:
    """Take away what a runtime leaves mounted in its root when the last container is gone. Blocking."""
    try:
        if any(root.glob("*.state")):  # of containers that live on
            return
        for path in (root / name for name in names):
            mount.unmount_all(path)  # several, where sandboxes were made at the same time
            path.unlink(missing_ok=True)
    except OSError:
        return


async def _reap(child: process.Child) -> None:
    await child.wait()
