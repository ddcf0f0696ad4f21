"""Blocking work of the life cycle in a thread, waited for to its end whatever becomes of the caller.

A thread cannot be cancelled. If a cancelled caller went on at once, its undo would run beside the work that
it undoes, and lose. Knows nothing of the work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def fill(executor: ThreadPoolExecutor, size: int) -> None:
    """Have all threads of a pool started, by the first of them: who starts one waits until it runs.

    On a busy machine that is long, and a pool whose threads come with the work has the event loop start them.
    """
    gate = threading.Event()

    def start_the_others() -> None:
        try:
            for _ in range(size - 1):
                executor.submit(gate.wait)
        finally:
            gate.set()

    executor.submit(start_the_others)


async def in_thread(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """`work` in one of the loop's threads; a cancel takes effect when it is done."""
    return await in_executor(None, lambda: work(*args, **kwargs))


async def taken_in_thread(work: Callable[[], T], give_back: Callable[[T], None]) -> T:
    """The same for what somebody must let go again: what a cancelled caller does not get is given back."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await to_its_end(future)
    except asyncio.CancelledError:
        if not future.cancelled() and future.exception() is None:
            give_back(future.result())
        raise


async def in_executor(executor: Executor | None, work: Callable[[], T]) -> T:
    """The same in a pool of the caller's own."""
    return await to_its_end(asyncio.get_running_loop().run_in_executor(executor, work))


async def to_its_end(future: asyncio.Future[T]) -> T:
    """What a future that cannot be cancelled becomes; a cancel takes effect when it is done."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # taken: the cancel is the answer
        raise cancelled
    return future.result()
