"""One container's fifos, its log file, and the clients that are attached to it.

Reads what the container writes, appends it to the log, hands it to the clients; takes their input. Never
waits: what cannot go on says so and is called again. A log that cannot be written holds its container back,
nobody else, and loses nothing.
"""

from __future__ import annotations

import os
import time

from shim.logger.lines import lines, stamp
from shim.logger.spool import CHUNK, Spool, append

STREAMS = (b"stdout", b"stderr")
_MARKS = (b"\x02", b"\x03")  # conmon's, so that one client end serves both
_PACKET = 8192
INPUT_LIMIT = 1 << 16


class Client:
    """Somebody who takes part in the output."""

    def hand(self, packet: bytes) -> None:
        """Take a packet; never waits."""
        raise AssertionError(packet)


class Outlet:
    """Made from the words of `add`, which are kept on disk: the next process makes it again."""

    def __init__(self, words: list[bytes], directory: str) -> None:
        self.id, self.out, self.err, self.stdin_path, self.log_path, flags = words
        self.words = words
        self._directory = directory
        self.tty = b"t" in flags
        self.once = b"o" in flags
        self.input_closed = b"c" in flags
        self.oom = b"k" in flags
        self.fifos = [-1, -1]
        self.ended = [True, True]
        self.stdin = -1
        self.log = -1
        self.held: list[tuple[Spool, bytes] | None] = [None, None]
        self.clients: list[Client] = []
        self.input = bytearray()
        self.closing = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        for number, path in enumerate((self.out, self.err)):
            if path:
                self.fifos[number] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self.ended[number] = False
        if self.stdin_path and not self.input_closed:
            self.stdin = os.open(self.stdin_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.reopen()

    def reopen(self) -> None:
        """Write to the file that is at the log path now, made if there is none. Raises OSError."""
        if not self.log_path:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            opened = os.open(self.log_path, flags, 0o640)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.log_path), 0o755, exist_ok=True)
            opened = os.open(self.log_path, flags, 0o640)
        os.fchmod(opened, 0o640)
        if self.log >= 0:
            os.close(self.log)
        self.log = opened

    def pump(self, number: int, spool: Spool) -> bool:
        """Move one piece of a stream. False when there is nothing to move now.

        Raises OSError when the log cannot be written: the piece is held, `retry` tries again.
        """
        fifo = self.fifos[number]
        if fifo < 0 or self.held[number] is not None:
            return False
        if self.log < 0:
            try:
                data: bytes | None = os.read(fifo, CHUNK)
            except BlockingIOError:
                data = None
        else:
            data = spool.take(fifo, self.id, STREAMS[number], self.log)
        if data is None:
            return False
        if not data:
            self.ended[number] = True
            return False
        self.ended[number] = False
        if self.log >= 0:
            text = lines(data, STREAMS[number], stamp(time.time_ns()))
            try:
                append(self.log, text)
            except OSError:
                self._hold(number, spool, text)
                raise
            spool.done()
        self._hand_out(number, data)
        return True

    def _hold(self, number: int, spool: Spool, text: bytes) -> None:
        """The piece's file becomes this stream's own; the next piece of another gets a new one."""
        name = f"{self._directory}/held.{self.id.decode()}.{STREAMS[number].decode()}"
        os.rename(spool.path, name)
        kept = Spool(name)
        spool.renew()
        self.held[number] = (kept, text)

    def retry(self) -> bool:
        """Write what is held; whether nothing is held any more."""
        for number, kept in enumerate(self.held):
            if kept is None:
                continue
            spool, text = kept
            try:
                append(self.log, text)
            except OSError:
                return False
            spool.done()
            spool.close()
            os.unlink(spool.path)
            self.held[number] = None
        return True

    def _hand_out(self, number: int, data: bytes) -> None:
        if not self.clients:
            return
        for start in range(0, len(data), _PACKET):
            packet = _MARKS[number] + data[start : start + _PACKET]
            for client in list(self.clients):
                client.hand(packet)

    def feed(self) -> bool:
        """Write input that waits; whether all of it is written."""
        if self.stdin < 0:
            self.input.clear()
        while self.input:
            try:
                del self.input[: os.write(self.stdin, self.input)]
            except BlockingIOError:
                return False
            except OSError:
                self.input.clear()
        return True

    def end_input(self) -> bool:
        """The container's input ends here; True the first time."""
        if self.stdin < 0:
            return False
        os.close(self.stdin)
        self.stdin = -1
        self.input_closed = True
        self.words = [*self.words[:-1], self.words[-1] + b"c"]
        return True

    def mark_oom(self) -> bool:
        """Its shim says that the kernel killed something in it for want of memory; True the first time."""
        if self.oom:
            return False
        self.oom = True
        self.words = [*self.words[:-1], self.words[-1] + b"k"]
        return True

    def close(self) -> None:
        """Let go of everything; what is held is lost with the log that could not take it."""
        for number, fifo in enumerate(self.fifos):
            if fifo >= 0:
                os.close(fifo)
                self.fifos[number] = -1
            kept = self.held[number]
            if kept is not None:
                kept[0].close()
                os.unlink(kept[0].path)
                self.held[number] = None
        for name in ("stdin", "log"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)
