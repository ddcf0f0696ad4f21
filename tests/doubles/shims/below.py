"""The OCI runtime below a shim, and the ends of everything that it starts, which this process inherits."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


class Failed(Exception):
    """The runtime refused; its words."""


class Children:
    """Reaps every child and orphan of this process, which becomes their subreaper."""

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._ends: dict[int, asyncio.Future[tuple[int, int]]] = {}
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def end(self, pid: int) -> asyncio.Future[tuple[int, int]]:
        """Of a process that this one reaps: (exit status, 128 + n after signal n; nanoseconds)."""
        if pid not in self._ends:
            self._ends[pid] = asyncio.get_running_loop().create_future()
        return self._ends[pid]

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            self.end(pid).set_result((code if code >= 0 else 128 - code, time.time_ns()))

    async def run(
        self, argv: Sequence[str], *, given: Sequence[int] = (), cwd: str | None = None
    ) -> tuple[int, str, str]:
        """Status, standard output and error; with `given` those are the descriptors and stay unread."""
        null = os.open(os.devnull, os.O_RDWR)
        out, err = os.memfd_create("out"), os.memfd_create("err")
        streams = [*given] if given else [null, out, err]
        child = subprocess.Popen(argv, stdin=streams[0], stdout=streams[1], stderr=streams[2], cwd=cwd)
        code, _ = await self.end(child.pid)
        self._ends.pop(child.pid)
        child.returncode = code  # it is reaped here, and not by this object
        texts = []
        for descriptor in (out, err):
            texts.append(os.pread(descriptor, 1 << 20, 0).decode("utf-8", "replace"))
            os.close(descriptor)
        os.close(null)
        return code, texts[0], texts[1]


class Runtime:
    """Its command line: every verb that a shim needs."""

    def __init__(self, program: str, root: str, directory: Path, children: Children) -> None:
        self._argv = [program, "--root", root, "--log-format", "json"]
        self._directory = directory
        self._children = children
        self._number = 0

    async def call(self, *words: str, given: Sequence[int] = ()) -> str:
        """Its standard output. Raises Failed with its words."""
        self._number += 1
        log = self._directory / f"log-{self._number}.json"
        try:
            code, out, err = await self._children.run(
                [*self._argv[:3], "--log", str(log), *self._argv[3:], *words], given=given
            )
            if code:
                raise Failed(_words(log) or err.strip() or out.strip() or f"exit status {code}")
            return out
        finally:
            log.unlink(missing_ok=True)

    async def processes(self, container: str) -> list[int]:
        return [int(pid) for pid in json.loads(await self.call("ps", "--format", "json", container))]


def _words(log: Path) -> str:
    """The last error of its log."""
    words = ""
    if log.exists():
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if entry.get("level") == "error":
                words = entry["msg"]
    return words
