"""Changes as they happen, from the daemon's event stream, read in a thread so that time can pass."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cli.session import Session
from oci.errors import Busy, CrispError

if TYPE_CHECKING:
    from api.proto import admin_pb2

REFRESH = 5.0
"""Seconds without a change after which ages are shown anew."""

_SETTLE = 0.05
"""Seconds in which further changes are taken as one: a pod that starts makes several."""

_RECONNECT = 0.5
"""Seconds between two attempts to reach a daemon that went away."""


class Follower:
    """Reads events into a queue; at the stream's end it gives None, or the error that ended it."""

    def __init__(self, session: Session, realm: str) -> None:
        from api.proto import admin_pb2

        self.queue: queue.SimpleQueue[admin_pb2.Event | CrispError | None] = queue.SimpleQueue()
        self._stream = session.admin.Events(admin_pb2.EventsRequest(realm=realm))
        self._thread = threading.Thread(target=self._read, name="events", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self._stream:
                self.queue.put(event)
        except CrispError as error:
            self.queue.put(error)
        else:
            self.queue.put(None)


def changes(session: Session, realm: str) -> Iterator[None]:
    """Yields at once, at every change (several that come together count as one), and now and then."""
    follower = Follower(session, realm)
    yield
    while True:
        if _take(follower, REFRESH):
            while _take(follower, _SETTLE):
                pass
        yield


def _take(follower: Follower, timeout: float) -> admin_pb2.Event | None:
    try:
        found = follower.queue.get(timeout=timeout)
    except queue.Empty:
        return None
    if isinstance(found, CrispError):
        raise found
    if found is None:
        raise Busy("the daemon ended the stream of events: it stops or restarts")
    return found


class ExitWatch:
    """Knows when a container has ended, whatever the daemon does meanwhile: containers outlive it.

    Owns the session that it is given. Begins to watch at once, in a thread that ends with the program.
    """

    def __init__(self, session: Session, realm: str, container: str) -> None:
        self._session = session
        self._realm = realm
        self._container = container
        self._ended = threading.Event()
        self.silent = threading.Event()  # set while the daemon does not answer
        threading.Thread(target=self._watch, name="exit watch", daemon=True).start()

    def wait(self, timeout: float) -> bool:
        """Whether it has ended; waits that many seconds for it."""
        return self._ended.wait(timeout)

    def _watch(self) -> None:
        while not self._ended.is_set():
            try:
                self._follow()
            except CrispError:
                self.silent.set()
                self._session.forget()
            # Only reached when the stream broke: the daemon stops, restarts or is gone.
            self._ended.wait(_RECONNECT)

    def _follow(self) -> None:
        from api.proto import admin_pb2

        stream = self._session.admin.Events(admin_pb2.EventsRequest(realm=self._realm))
        events = iter(stream)
        # After the stream was asked for, so that no end falls between the two.
        known = self._session.inventory(self._realm).containers.get(self._container)
        self.silent.clear()
        if known is None or known.ended:
            self._ended.set()
            return
        for event in events:
            if event.id == self._container and event.state in ("exited", "removing", "removed"):
                self._ended.set()
                return
