"""The terminal that a runtime makes, handed over through a socket (runc's docs/terminals.md).

A runtime that copies a terminal's output itself can lose what a process writes last: crun 1.8.1 ends on the
process's end without looking for more. Here the master end is ours, and nothing is copied in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any


class Console:
    """A socket in `directory` that takes one terminal. `close` is owed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / f"{secrets.token_hex(4)}.tty"  # short: a socket's path has 107 bytes
        self._connection: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.bind(str(self.path))
            self._listener.listen(1)
        except BaseException:
            self.close()
            raise

    async def receive(self, exited: Coroutine[Any, Any, None]) -> int | None:
        """The terminal's descriptor, None when the runtime ended (`exited`) without sending one."""
        taking, ending = asyncio.ensure_future(self._take()), asyncio.ensure_future(exited)
        try:
            await asyncio.wait({taking, ending}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if taking.done() and not taking.cancelled() and taking.exception() is None:
                os.close(taking.result())
            raise
        finally:
            taken, over = taking.done(), ending.done()
            taking.cancel()
            ending.cancel()
            await asyncio.gather(taking, ending, return_exceptions=True)
        try:
            # A runtime whose process ends at once has ended as soon as it has sent: what it sent is there.
            return taking.result() if taken else self._sent()
        except OSError:
            if over:  # its end tells why
                return None
            raise

    async def _take(self) -> int:
        loop = asyncio.get_running_loop()
        while (descriptor := self._sent()) is None:
            waited_for = self._connection or self._listener
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(waited_for, _wake, readable)
            try:
                await readable
            finally:
                loop.remove_reader(waited_for)
        return descriptor

    def _sent(self) -> int | None:
        """The terminal, if it is there; does not wait."""
        try:
            if self._connection is None:
                self._connection, _ = self._listener.accept()
                self._connection.setblocking(False)
            _, descriptors, _, _ = socket.recv_fds(self._connection, 4096, 1)
        except BlockingIOError:
            return None
        if not descriptors:
            raise OSError("the runtime sent no terminal")
        os.set_inheritable(descriptors[0], False)
        return descriptors[0]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
