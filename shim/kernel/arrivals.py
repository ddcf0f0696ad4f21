"""Complete files that arrive in a directory, by name and at once (inotify(7)), as a callback on the loop.

For a directory into which other programs put their answers. Unlike `inotify.DirectoryWatch` it does not wait
for a burst to settle and needs no look at the directory, except after the kernel dropped events.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from oci.errors import Full
from shim.kernel import libc
from shim.kernel.inotify import Mask, parse_events

_BUFFER = 1 << 16


class Arrivals:
    """Calls `arrived(name)` when a file was renamed into one of the directories or closed after writing.

    `lost()` is called when the kernel's queue overflowed: the listener then looks for itself. The directories
    must exist. Raises OSError, Full when the kernel's limit of inotify instances or watches is reached.
    """

    def __init__(self, arrived: Callable[[str], None], lost: Callable[[], None]) -> None:
        self._arrived = arrived
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._descriptor = -1
        try:
            self._descriptor = libc.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _full(error) from error
        self._loop.add_reader(self._descriptor, self._on_readable)

    def add(self, directory: Path) -> None:
        """Watch one more directory; adding it again changes nothing."""
        flags = int(Mask.MOVED_TO | Mask.CLOSE_WRITE | Mask.ONLYDIR)
        try:
            libc.call(
                "inotify_add_watch", self._descriptor, os.fsencode(directory), flags, path=str(directory)
            )
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _full(error) from error

    def close(self) -> None:
        """Stop watching. Repeatable."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _on_readable(self) -> None:
        try:
            events = parse_events(os.read(self._descriptor, _BUFFER))
        except BlockingIOError:
            return
        for _, mask, name in events:
            if mask & Mask.Q_OVERFLOW:
                self._lost()
            elif name:
                self._arrived(name)


def _full(error: OSError) -> Full:
    return Full(
        f"watching for files ({error.strerror}): raise fs.inotify.max_user_instances and max_user_watches"
    )
