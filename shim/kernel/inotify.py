"""Noticing that a directory changes, comes or goes (inotify(7)), as a callback on the event loop.

It says that something changed, never what: the listener looks for itself, so a lost event costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
from collections.abc import Callable
from enum import IntFlag
from pathlib import Path

from oci.errors import Full
from shim.kernel import libc

log = logging.getLogger(__name__)


class Mask(IntFlag):
    """IN_* of linux/inotify.h."""

    ATTRIB = 0x4
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    UNMOUNT = 0x2000
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x01000000


_ENTRIES = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO
_CONTENT = _ENTRIES | Mask.CLOSE_WRITE | Mask.ATTRIB
_SELF = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED
_EVENT = struct.Struct("iIII")
_BUFFER = 1 << 16


def parse_events(data: bytes) -> list[tuple[int, Mask, str]]:
    """One read of an inotify descriptor as (watch, mask, name of the entry or "")."""
    events = []
    position = 0
    while position + _EVENT.size <= len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, position)
        position += _EVENT.size
        name = data[position : position + length].rstrip(b"\0")
        position += length
        events.append((watch, Mask(mask), os.fsdecode(name)))
    return events


class DirectoryWatch:
    """Calls `changed` on the running loop after the entries of a directory, or itself, have changed.

    The directory need not exist, nor its parents: every directory on the way is watched for the next name.
    Bursts become one call, `settle` seconds after the first event. Raises Full when the kernel's limit of
    inotify instances or watches is reached.
    """

    def __init__(self, path: str | Path, changed: Callable[[], None], *, settle: float = 0.05) -> None:
        self._path = Path(path)
        self._changed = changed
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._content = -1
        self._steps: dict[int, set[str]] = {}
        self._descriptor = -1
        self._arm()

    @property
    def armed(self) -> bool:
        """Whether changes are noticed: false once closed, or when the kernel granted no more watches."""
        return self._descriptor >= 0

    def close(self) -> None:
        """Stop watching. Repeatable."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _arm(self) -> None:
        """Watches for the path as it is now; adding one that is there returns its number."""
        try:
            if self._descriptor < 0:
                self._descriptor = libc.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
                self._loop.add_reader(self._descriptor, self._on_readable)
            before = {self._content, *self._steps}
            self._content, self._steps = -1, {}
            # Where the path is a link, both ends of it count: what it points at may come and go too.
            for path in {self._path, Path(os.path.realpath(self._path))}:
                self._arm_way(path)
            for stale in before - {-1, self._content, *self._steps}:
                with contextlib.suppress(OSError):  # EINVAL: it went with its directory
                    libc.call("inotify_rm_watch", self._descriptor, stale)
        except OSError as error:
            self.close()
            raise Full(
                f"watching {self._path}: {os.strerror(error.errno or 0)} "
                "(raise fs.inotify.max_user_instances and max_user_watches)"
            ) from error

    def _arm_way(self, path: Path) -> None:
        chain = [*reversed(path.parents), path]
        for directory, following in zip(chain, [*chain[1:], None], strict=True):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                if following is None:
                    self._content = self._add(directory, _CONTENT)
                else:
                    watch = self._add(directory, _ENTRIES)
                    self._steps.setdefault(watch, set()).add(following.name)

    def _add(self, directory: Path, mask: Mask) -> int:
        flags = int(mask | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR)
        return libc.call(
            "inotify_add_watch", self._descriptor, os.fsencode(directory), flags, path=str(directory)
        )

    def _on_readable(self) -> None:
        try:
            events = parse_events(os.read(self._descriptor, _BUFFER))
        except BlockingIOError:
            return
        if any(self._concerns(event) for event in events) and self._timer is None:
            self._timer = self._loop.call_later(self._settle, self._fire)

    def _concerns(self, event: tuple[int, Mask, str]) -> bool:
        watch, mask, name = event
        if mask & Mask.Q_OVERFLOW:
            return True
        if watch == self._content:
            return True
        return watch in self._steps and (bool(mask & _SELF) or name in self._steps[watch])

    def _fire(self) -> None:
        self._timer = None
        try:
            self._arm()  # first, so that nothing that happens after the listener's look is missed
        except Full as error:  # the listener sees it by `armed`
            log.warning("a directory is no longer watched", extra={"error": error.message})
        self._changed()
