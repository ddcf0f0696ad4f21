"""Locks by key: one for each object that somebody holds or waits for, and none for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Counted:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Locks:
    """Belongs to the event loop.

    A lock goes with its last user, never before: one that goes while somebody waits for it would let two in.
    """

    def __init__(self) -> None:
        self._locks: dict[Hashable, _Counted] = {}

    @asynccontextmanager
    async def exclusive(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the one lock of an object; others wait in order."""
        counted = self._locks.setdefault(key, _Counted())
        counted.users += 1
        try:
            async with counted.lock:
                yield
        finally:
            counted.users -= 1
            if not counted.users:
                del self._locks[key]

    def held(self, key: Hashable) -> bool:
        """Whether somebody holds, or waits for, that object."""
        return key in self._locks
