"""Something happens at the n-th suspension of an operation, its own tasks included.

`Suspensions.install` gives the running loop a task factory; tasks that begin within `Suspensions.watched` are
stepped through and each time one of them gives control back counts. `LateThreads` lets a thread's work that
is waited for at that moment begin only after everything else had its turn: the order that hurts.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

_WATCHED: ContextVar[bool] = ContextVar("watched", default=False)
_HEAD_START = 0.003  # seconds that the loop has before a thread begins its work
_LATE = 0.15  # seconds that work comes late; whoever does not wait for it is done by then


class Suspensions:
    """`at` is the number of the suspension at which `action` is called, from the event loop; 0 is never."""

    def __init__(self) -> None:
        self.count = 0
        self._at = 0
        self._action: Callable[[], None] = lambda: None

    def install(self) -> None:
        asyncio.get_running_loop().set_task_factory(self._factory)

    def arm(self, at: int, action: Callable[[], None]) -> None:
        self.count, self._at, self._action = 0, at, action

    async def watched(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run `work`; the tasks that it begins are watched, it is not itself."""
        _WATCHED.set(True)
        return await work

    def _factory(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        if not _WATCHED.get():
            return asyncio.Task(coro, loop=loop, **options)
        task = asyncio.Task(self._stepped(coro), loop=loop, **options)
        # One cancelled before its first step never touches `coro`, which a plain task would have closed.
        task.add_done_callback(lambda _: coro.close())
        return task

    async def _stepped(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return await _Steps(coro, self._suspended)

    def _suspended(self) -> None:
        self.count += 1
        if self.count == self._at:
            asyncio.get_running_loop().call_soon(self._action)


class _Steps:
    def __init__(self, coro: Coroutine[Any, Any, Any], suspended: Callable[[], None]) -> None:
        self._coro, self._suspended = coro, suspended

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waits_for = self._coro.send(None) if error is None else self._coro.throw(error)
            except StopIteration as end:
                return end.value
            error = None
            self._suspended()
            try:
                yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - handed on to the coroutine
                error = thrown


class LateThreads(ThreadPoolExecutor):
    """`delay` makes late what was submitted and has not begun."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: dict[threading.Event, Future[Any]] = {}
        _POOLS.append(self)

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[override]
        late = threading.Event()

        def begin() -> Any:
            if late.wait(_HEAD_START):
                threading.Event().wait(_LATE)
            self._waiting.pop(late, None)
            return work(*args, **kwargs)

        future = super().submit(begin)
        if not future.done():
            self._waiting[late] = future
        return future

    def delay(self) -> list[Future[Any]]:
        delayed = dict(self._waiting)
        for late in delayed:
            late.set()
        return list(delayed.values())


_POOLS: list[LateThreads] = []


def delay_threads() -> list[Future[Any]]:
    """What any pool has waiting comes late; it is returned, to be waited for."""
    return [future for pool in _POOLS for future in pool.delay()]
