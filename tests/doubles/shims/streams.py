"""A process's streams: pipes or a terminal on its side, fifos on the other, and threads that copy.

As containerd's Go shims do: an output's fifo is held open at both ends until the process has closed its side.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import termios
import threading
from pathlib import Path

_CHUNK = 1 << 15


class Streams:
    """`stdin`, `stdout`, `stderr` are paths of fifos, "" for what nobody wants."""

    def __init__(self, *, stdin: str, stdout: str, stderr: str, terminal: bool) -> None:
        self.paths = (stdin, stdout, stderr)
        self.terminal = terminal
        self.given: list[int] = []  # for the process: standard input, output, error
        self.console: socket.socket | None = None
        self._master = -1
        self._writer = -1  # an end of the input's fifo, until its end is asked for
        self._threads: list[threading.Thread] = []

    def open(self, console: Path) -> None:
        """Open the fifos; `console` is where the runtime sends a terminal to. Raises OSError."""
        stdin, stdout, stderr = self.paths
        if stdin:
            self._writer = os.open(stdin, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if self.terminal:
            self.console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.console.bind(str(console))
            self.console.listen(1)
            self.given = [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(3)]
            return
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.given = [null, null, null]
        if stdin:
            self.given[0], writing = os.pipe2(os.O_CLOEXEC)
            self._copy("in", os.open(stdin, os.O_RDONLY | os.O_CLOEXEC), writing)
        for number, path in ((1, stdout), (2, stderr)):
            if path:
                reading, self.given[number] = os.pipe2(os.O_CLOEXEC)
                self._copy("out", reading, _both_ends(path))

    def started(self) -> None:
        """The process has its ends; with a terminal the runtime has sent it. Blocking."""
        for descriptor in set(self.given):
            os.close(descriptor)
        self.given = []
        if self.console is None:
            return
        connection, _ = self.console.accept()
        _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(4))
        self._master = array.array("i", ancillary[0][2])[0]
        connection.close()
        self.console.close()
        stdin, stdout, _ = self.paths
        self._copy("out", os.dup(self._master), _both_ends(stdout))
        if stdin:
            self._copy("in", os.open(stdin, os.O_RDONLY | os.O_CLOEXEC), os.dup(self._master))

    def resize(self, width: int, height: int) -> None:
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def end_input(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def copied(self, timeout: float) -> None:
        """Wait until the outputs are copied to their end. Blocking."""
        for thread in self._threads:
            if thread.name == "out":
                thread.join(timeout)

    def close(self) -> None:
        """Give up what is open here; threads that copy end with what they read."""
        for descriptor in set(self.given):
            os.close(descriptor)
        self.given = []
        self.end_input()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def _copy(self, name: str, source: int, target: int) -> None:
        thread = threading.Thread(target=_copying, args=(source, target), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def _both_ends(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _copying(source: int, target: int) -> None:
    with contextlib.suppress(OSError):  # EIO: the terminal's other side is closed; EPIPE
        while data := os.read(source, _CHUNK):
            while data:
                data = data[os.write(target, data) :]
    os.close(source)
    os.close(target)
