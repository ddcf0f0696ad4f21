"""The socket at which shims publish events, `DIRECTORY/events`, and its connections.

Only what an event means for a container goes further; the rest is taken and dropped, since a shim may fail
or die where nobody takes it.
"""

from __future__ import annotations

import _socket
import os
import select
from collections.abc import Callable

from shim.logger.events import Conversation

_BACKLOG = 1024
_CHUNK = 1 << 16


class Publishers:
    """Serves on the process's own `poll`; `killed(container)` is called for a kill for want of memory."""

    def __init__(self, directory: str, poll: select.epoll, killed: Callable[[bytes], None]) -> None:
        self._path = f"{directory}/events"
        self._poll = poll
        self._killed = killed
        self._open: dict[int, tuple[_socket.socket, Conversation]] = {}
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC, 0)
        if os.path.lexists(self._path):
            os.unlink(self._path)
        self._listener.bind(self._path)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        poll.register(self._listener.fileno(), select.EPOLLIN)

    def serves(self, descriptor: int) -> bool:
        """Whether the descriptor is one of these; then `serve` it."""
        return descriptor in self._open or descriptor == self._listener.fileno()

    def serve(self, descriptor: int) -> None:
        if descriptor == self._listener.fileno():
            self._accept()
            return
        connection, conversation = self._open[descriptor]
        try:
            try:
                data = connection.recv(_CHUNK)
            except BlockingIOError:
                return
            if not data:
                raise OSError
            answers, killed = conversation.receive(data)
            for container in killed:  # it is on the disk before the shim hears that it was taken
                self._killed(container)
            if answers and connection.send(answers, _socket.MSG_NOSIGNAL) != len(answers):
                raise OSError  # a publisher that does not read its answers
        except (OSError, ValueError):
            self._poll.unregister(descriptor)
            del self._open[descriptor]
            connection.close()

    def close(self) -> None:
        os.unlink(self._path)

    def _accept(self) -> None:
        while True:
            try:
                descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
            except OSError:
                return
            connection = _socket.socket(fileno=descriptor)
            connection.setblocking(False)
            self._open[descriptor] = (connection, Conversation())
            self._poll.register(descriptor, select.EPOLLIN)
