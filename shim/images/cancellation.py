"""Ending work that runs in threads: a flag to look at, and sockets to close so that no read outlasts it."""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref


class Cancelled(Exception):
    """Nobody waits for this work any more; never shown to a caller."""


class Cancellation:
    """Shared between a task of the event loop, which cancels, and the threads that work for it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._parts: set[Cancellation] = set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise Cancelled once `cancel` was called."""
        if self._event.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Sleep, or raise Cancelled as soon as `cancel` is called."""
        if self._event.wait(seconds):
            raise Cancelled

    def watch(self, connection: socket.socket) -> None:
        """Have a connected socket shut down by `cancel`; one that comes late is shut down now."""
        with self._lock:
            if not self._event.is_set():
                self._sockets.add(connection)
                return
        _shut(connection)

    def add(self, part: Cancellation) -> None:
        """Have `part` cancelled with this one; at once if this is."""
        with self._lock:
            if not self._event.is_set():
                self._parts.add(part)
                return
        part.cancel()

    def remove(self, part: Cancellation) -> None:
        with self._lock:
            self._parts.discard(part)

    def cancel(self) -> None:
        """End it all: waits, reads and writes return at once with an error. From any thread, repeatable."""
        with self._lock:
            self._event.set()
            sockets = list(self._sockets)
            self._sockets.clear()
            parts = list(self._parts)
        for part in parts:
            part.cancel()
        for connection in sockets:
            _shut(connection)


def _shut(connection: socket.socket) -> None:
    # socket.socket's own method: that of an SSLSocket would take its TLS state from under a reading thread
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
