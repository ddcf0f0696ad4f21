"""The store's change feed as a stream: one bounded queue a watcher, so that none can hold up the daemon."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar

from oci.errors import Busy, Full
from oci.workload import ContainerId, PodId
from shim.records import ContainerRecord, PodRecord
from shim.state.store import Change

BACKLOG = 1000
"""Entries that wait for a slow watcher before its stream is ended."""

Seen = TypeVar("Seen")
Shown = TypeVar("Shown")


class Feed(Protocol):
    def subscribe(self, listener: Callable[[Change], None], /) -> Callable[[], None]:
        """Call `listener` on the event loop after each change; returns the way to end that."""
        ...


class Records(Feed, Protocol):
    """The state store, as far as it is looked at."""

    @property
    def pods(self) -> Mapping[PodId, PodRecord]: ...
    @property
    def containers(self) -> Mapping[ContainerId, ContainerRecord]: ...
    def containers_of(self, pod_id: PodId, /) -> list[ContainerRecord]: ...


class Watch(Generic[Seen, Shown]):
    """Changes from the making of this object on, until it is closed; an asynchronous iterator.

    `see` runs at each change, within the store's turn on the event loop: it must be quick, and take along all
    that may be gone later. `show` runs when the watcher reads. Reading raises Full once the watcher was
    `backlog` entries behind: it has missed some then.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        see: Callable[[Change], Iterable[Seen]],
        show: Callable[[Seen], Shown],
        backlog: int = BACKLOG,
    ) -> None:
        self._see = see
        self._show = show
        self._backlog = backlog
        self._waiting: deque[Seen] = deque()
        self._fell_behind = False
        self._ended = False
        self._news = asyncio.Event()
        self._unsubscribe = feed.subscribe(self._changed)
        self._closed = False

    def _changed(self, change: Change) -> None:
        if self._fell_behind:
            return
        self._waiting.extend(self._see(change))
        if len(self._waiting) > self._backlog:
            self._fell_behind = True
            self._waiting.clear()
        self._news.set()

    def __aiter__(self) -> Watch[Seen, Shown]:
        return self

    async def __anext__(self) -> Shown:
        while True:
            if self._fell_behind:
                raise Full(
                    f"events: this watcher was more than {self._backlog} changes behind,"
                    " list again and reconnect"
                )
            if self._waiting:
                return self._show(self._waiting.popleft())
            if self._ended:
                raise Busy("events: the daemon stops, reconnect")
            self._news.clear()
            await self._news.wait()

    def end(self) -> None:
        """Let the reader get what waits, and then Busy: the daemon stops."""
        self._ended = True
        self._news.set()

    async def aclose(self) -> None:
        """End the subscription; again is no error."""
        if not self._closed:
            self._closed = True
            self._unsubscribe()
