"""Blocking work of the image store in threads of its own, so that neither the event loop nor others wait."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from oci.errors import Busy
from shim.images.cancellation import Cancellation, Cancelled
from shim.threads import fill

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE = 1.5
"""Seconds that a cancelled caller waits for the thread to clean up: less than the 2 s of a pull's end."""


class Threads:
    """Two pools of threads that belong to one store: hanging registries must not keep disks from working."""

    def __init__(self, *, remote: int, local: int) -> None:
        self._remote = ThreadPoolExecutor(max_workers=remote, thread_name_prefix="crisp-registry")
        self._local = ThreadPoolExecutor(max_workers=local, thread_name_prefix="crisp-images")
        self._sizes = ((self._remote, remote), (self._local, local))
        self._closed = False

    def start(self) -> None:
        """Start all of them now, where work must not wait for that."""
        for pool, size in self._sizes:
            fill(pool, size)

    async def run(
        self,
        cancellation: Cancellation,
        work: Callable[[], T],
        *,
        discard: Callable[[T], None] | None = None,
    ) -> T:
        """Long work in a thread, such as what asks a registry.

        A cancel of the caller cancels `cancellation` and waits for the thread. A result that came too late
        for the caller goes to `discard`, in a thread. Raises Busy once the store is closed.
        """
        self._check()
        loop = asyncio.get_running_loop()
        gone = threading.Event()
        dropped = threading.Event()

        def guarded() -> T:
            result = work()
            if gone.is_set() and discard is not None:
                dropped.set()
                discard(result)
            return result

        future = loop.run_in_executor(self._remote, guarded)
        try:
            return await asyncio.shield(future)
        except Cancelled as ended:
            raise asyncio.CancelledError from ended
        except asyncio.CancelledError:
            gone.set()
            cancellation.cancel()
            future.add_done_callback(_taken)
            await asyncio.wait({future}, timeout=_PATIENCE)
            if future.done() and future.exception() is None and discard is not None and not dropped.is_set():
                await loop.run_in_executor(self._local, discard, future.result())
            raise

    async def do(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Short work on local files: a cancel takes effect when it is done. Raises Busy as `run` does."""
        self._check()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._local, lambda: work(*args, **kwargs))
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError as error:
                cancelled = error
            except BaseException:
                if cancelled is None:
                    raise
        if cancelled is not None:
            _taken(future)
            raise cancelled
        return future.result()

    def _check(self) -> None:
        if self._closed:
            raise Busy("the image store is closing: the daemon ends")

    def close(self) -> None:
        self._closed = True
        self._remote.shutdown(wait=False, cancel_futures=True)
        self._local.shutdown(wait=False, cancel_futures=True)


def _taken(future: asyncio.Future[T]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.debug("work that nobody waits for any more ended", extra={"error": str(error)})
