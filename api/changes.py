"""The store's change feed as a stream: one bounded queue a watcher, so that none can hold up the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from oci.errors import Full
from shim.state.store import Change

BACKLOG = 1000
"""Changes that wait for a slow watcher before its stream is ended."""


class Feed(Protocol):
    def subscribe(self, listener: Callable[[Change], None], /) -> Callable[[], None]:
        """Call `listener` on the event loop after each change; returns the way to end that."""
        ...


async def follow(feed: Feed, *, backlog: int = BACKLOG) -> AsyncGenerator[Change, None]:
    """Changes from now on. Raises Full when the watcher does not keep up."""
    queue: asyncio.Queue[Change] = asyncio.Queue(backlog)
    overflow = asyncio.Event()

    def listener(change: Change) -> None:
        try:
            queue.put_nowait(change)
        except asyncio.QueueFull:
            overflow.set()

    end = feed.subscribe(listener)
    try:
        while not overflow.is_set():
            yield await queue.get()
    finally:
        end()
    raise Full(f"events: this watcher was more than {backlog} changes behind, list again and reconnect")
