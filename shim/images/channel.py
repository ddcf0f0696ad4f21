"""A bounded stream of blocks between two threads, in which either end can say that it is over."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator


class ReaderGone(Exception):
    """The other end does not read any more: the sender ends quietly."""


class Channel:
    """One sender, one reader. The sender's exception comes out at the reader's end."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._blocks: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._gone = False
        self._error: BaseException | None = None

    def send(self, block: bytes) -> None:
        with self._changed:
            while len(self._blocks) >= self._depth and not self._gone:
                self._changed.wait()
            if self._gone:
                raise ReaderGone
            self._blocks.append(block)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """No more blocks; the reader gets `error` after the last one."""
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify_all()

    def leave(self) -> None:
        """The reader goes; what is in the channel is dropped."""
        with self._changed:
            self._gone = True
            self._blocks.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                while not self._blocks and not self._ended:
                    self._changed.wait()
                if not self._blocks:
                    if self._error is not None:
                        raise self._error
                    return
                block = self._blocks.popleft()
                self._changed.notify_all()
            yield block


class Stage:
    """A thread that sends what `work` yields. Leave it as a context: its reader goes and it is joined."""

    def __init__(self, work: Callable[[], Iterable[bytes]], *, depth: int, name: str) -> None:
        self._channel = Channel(depth)
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Iterator[bytes]:
        self._thread.start()
        return iter(self._channel)

    def __exit__(self, *_: object) -> None:
        self._channel.leave()
        self._thread.join()

    def _run(self) -> None:
        try:
            for block in self._work():
                self._channel.send(block)
        except ReaderGone:
            self._channel.end()
        except BaseException as error:  # noqa: BLE001 - carried over to the reader, which raises it
            self._channel.end(error)
        else:
            self._channel.end()
