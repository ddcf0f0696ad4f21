"""The page cache of mounted layers: after containers have started, each page is kept once and not twice.

The kernel reads an EROFS layer through the page cache of its tar, so what a container has read lies there
too. Mounted with `directio` it would not, but what the pull has just written would be read from the disk
again, and cold reads take three times as long (`docs/decisions/image-store.md`). So the tar's copy is dropped
when the start's reads are over, and only while somebody has the layer: when the last one ends, the other copy
goes with the mount, and the tar's is what the next start reads. Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Final

from shim.images.layout import Layout
from shim.images.threads import Threads

AFTER: Final = (5.0, 60.0)
"""Seconds after a start: when most programs have read what they need, and when slow ones have."""


class Settling:
    """Knows which layers have been wanted lately; `lent` says which are in use."""

    def __init__(
        self,
        layout_of: Callable[[str], Layout],
        threads: Threads,
        lent: Callable[[], frozenset[str]],
        after: tuple[float, ...] = AFTER,
    ) -> None:
        self._layout_of = layout_of
        self._threads = threads
        self._lent = lent
        self._after = after
        self._timers: set[asyncio.TimerHandle] = set()
        self._work: set[asyncio.Future[None]] = set()
        self._due: list[set[str]] = [set() for _ in after]

    def started(self, diff_ids: Iterable[str]) -> None:
        """A container uses these layers, of the EROFS form, from now on."""
        wanted = frozenset(diff_ids)
        for due, delay in zip(self._due, self._after, strict=True):
            if wanted and not due:  # a time has been set for those that are due
                self._set(due, delay)
            due.update(wanted)

    async def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*self._work, return_exceptions=True)

    def _set(self, due: set[str], delay: float) -> None:
        def elapsed() -> None:
            self._timers.discard(timer)
            layers = due & self._lent()
            due.clear()
            work = asyncio.ensure_future(self._threads.do(self._drop, layers))
            self._work.add(work)
            work.add_done_callback(self._work.discard)

        timer = asyncio.get_running_loop().call_later(delay, elapsed)
        self._timers.add(timer)

    def _drop(self, diff_ids: Iterable[str]) -> None:
        for diff_id in diff_ids:
            with contextlib.suppress(OSError):  # removed meanwhile, or the disk has other troubles
                descriptor = os.open(self._layout_of(diff_id).tar(diff_id), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)
