"""Bringing a container's output into a new file at the log path, without losing a line.

conmon reopens by creating `<log>.tmp`, truncating it, and renaming it over the log path, with mode 0600. So
the temporary file is made here first, with the right mode, and whatever the rename would destroy is moved out
of the way. Knows conmon's ways; the line format is conmon's too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from oci.errors import Absent, Deadline, Internal, WrongState
from oci.monitor import REOPEN_LOG
from shim import process
from shim.kernel.arrivals import Arrivals
from shim.records import ProcessRef
from shim.runtimes.conmon import MonitorFiles, send_control

T = TypeVar("T")

Identity = tuple[int, int]


def identity(path: Path | str) -> Identity | None:
    """Device and inode of a file, links followed; None when there is none. Blocking."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a string spares a Path for each descriptor of a process
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_open_in(monitor: ProcessRef, wanted: Identity) -> bool:
    """Whether a process has that file open. Blocking."""
    directory = f"/proc/{monitor.pid}/fd"
    with contextlib.suppress(OSError), os.scandir(directory) as listing:
        return any(identity(each.path) == wanted for each in listing)
    return False


def _prepare(log: Path, monitor: ProcessRef) -> Identity | None:
    """The file that will be the new log; None when the one at the path is still being written."""
    current = identity(log)
    if current is not None and is_open_in(monitor, current):
        return None
    if current is not None and log.stat().st_size > 0:
        # someone else's content, which conmon's rename would destroy: kept under a name as kubelet's
        # rotation gives it, so that it is also collected like one
        log.rename(f"{log}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
    temporary = log.with_name(log.name + ".tmp")
    log.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640
    )
    try:
        os.fchmod(descriptor, 0o640)
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return status.st_dev, status.st_ino


async def reopen(
    files: MonitorFiles,
    log: Path,
    monitor: ProcessRef,
    *,
    io: Executor,
    timeout: float,  # noqa: ASYNC109 - raised as Deadline
) -> None:
    """Make conmon write to a new file at `log`; the caller has renamed the old one.

    When nobody has, and the file there is the one being written, nothing is done. Returns when all later
    output goes to the file at the path. Raises WrongState when conmon is gone, Deadline after `timeout`
    seconds, Internal naming the path.
    """
    loop = asyncio.get_running_loop()

    async def blocking(work: Callable[[], T]) -> T:
        return await loop.run_in_executor(io, work)

    moved = asyncio.Event()
    try:
        new = await blocking(lambda: _prepare(log, monitor))
        if new is None:
            return
        arrivals = Arrivals(lambda name: moved.set() if name == log.name else None, moved.set)
        try:
            arrivals.add(log.parent)
            await blocking(lambda: send_control(files, REOPEN_LOG))
            async with asyncio.timeout(timeout):
                # conmon opens the new file before it renames it: at the path, it is the one in use
                while await blocking(lambda: identity(log)) != new:
                    await moved.wait()
                    moved.clear()
        finally:
            arrivals.close()
    except Absent as error:  # it ended after the caller had looked
        raise WrongState(f"log of container {files.id}: its conmon has ended, nothing writes it") from error
    except TimeoutError:
        if not process.alive(monitor):
            raise WrongState(
                f"log of container {files.id}: its conmon has ended, nothing writes it"
            ) from None
        raise Deadline(
            f"log of container {files.id}: conmon did not reopen {log} within {timeout:g} s"
        ) from None
    except OSError as error:
        raise Internal(f"log of container {files.id}: {error.filename or log}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # a later conmon that uses no such file
            await blocking(log.with_name(log.name + ".tmp").unlink)
