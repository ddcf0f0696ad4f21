"""Work that several callers want at once is done once, and ends when the last of them has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[V]):
    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Task[V]) -> None:
        self.task = task
        self.waiters = 0


class Flights(Generic[K, V]):
    """Running work by key. Belongs to one event loop."""

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[V]] = {}
        self._ending: set[asyncio.Task[V]] = set()

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    async def join(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """The result of the work for `key`: of what runs already, else of `work()`, which is started.

        Cancelling a caller cancels the work only if no other caller waits; then this returns when the work
        has cleaned up.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(asyncio.ensure_future(self._run(work)))
            self._flights[key] = flight
            flight.task.add_done_callback(lambda _: self._forget(key, flight))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.waiters == 1 and not flight.task.done():
                self._forget(key, flight)
                await self._end(flight.task)
            raise
        finally:
            flight.waiters -= 1

    async def close(self) -> None:
        """Cancel everything and wait until it has cleaned up."""
        tasks = [flight.task for flight in self._flights.values()]
        self._flights.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._ending, return_exceptions=True)

    async def _run(self, work: Callable[[], Awaitable[V]]) -> V:
        return await work()

    async def _end(self, task: asyncio.Task[V]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # taken: nobody is left to be told

    def _forget(self, key: K, flight: _Flight[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.task.done() and not flight.task.cancelled():
            flight.task.exception()
