"""Namespaces of single threads: made, entered and bound to a path, in a thread that ends with the work.

A thread that has changed its namespaces must never serve anything else, so none of this runs in a pool.
User namespaces cannot be made this way (a process with threads may not): see `shim/namespaces/`.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TypeVar

from shim.kernel import libc, mount
from shim.threads import in_thread, to_its_end

T = TypeVar("T")


class Kind(Enum):
    """A type of namespace: its name under /proc/PID/ns and its CLONE_NEW* bit (linux/sched.h)."""

    NETWORK = ("net", 0x40000000)
    IPC = ("ipc", 0x08000000)
    UTS = ("uts", 0x04000000)
    USER = ("user", 0x10000000)
    PID = ("pid", 0x20000000)
    MOUNT = ("mnt", 0x00020000)
    CGROUP = ("cgroup", 0x02000000)

    @property
    def file(self) -> str:
        return self.value[0]

    @property
    def flag(self) -> int:
        return self.value[1]


async def aside(work: Callable[[], T], *, name: str = "crisp-namespace") -> T:
    """Run `work` in a thread of its own that ends with it, and return its result or raise its exception.

    A cancel takes effect when the thread has ended, so nothing of it goes on behind the caller's back;
    `work` must therefore be short.
    """
    return await in_thread(_apart, work, name)


def _apart(work: Callable[[], T], name: str) -> T:
    """Blocking: to start a thread is to wait until it runs, on a busy machine for tens of milliseconds."""
    outcome: Future[T] = Future()

    def main() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - carried over to the caller
            outcome.set_exception(error)

    thread = threading.Thread(target=main, name=name)
    thread.start()
    thread.join()
    return outcome.result()


def unshare(*kinds: Kind) -> None:
    """Give the calling thread new namespaces (unshare(2)). Only in a thread of `aside`. Raises OSError."""
    flags = 0
    for kind in kinds:
        flags |= kind.flag
    libc.call("unshare", flags)


def enter(path: str | Path, kind: Kind) -> None:
    """Move the calling thread into the namespace at `path` (setns(2)). Only in a thread of `aside`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.call("setns", descriptor, kind.flag, path=os.fspath(path))
    finally:
        os.close(descriptor)


def keep(source: str | Path, target: str | Path) -> None:
    """Keep the namespace file `source` alive by a bind mount at `target`, a file made here.

    Raises OSError, FileExistsError for a target that is there; nothing is left on failure.
    """
    os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        mount.bind(source, target)
    except BaseException:
        Path(target).unlink(missing_ok=True)
        raise


def keep_own(kind: Kind, target: str | Path) -> None:
    """`keep` the calling thread's namespace; /proc/self would show the process's instead."""
    keep(f"/proc/thread-self/ns/{kind.file}", target)


def is_namespace(path: str | Path) -> bool:
    """Whether a namespace is kept at `path`, and not just the file that a lost bind mount leaves.

    Namespace files all live on one device, nsfs.
    """
    try:
        return Path(path).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except (FileNotFoundError, NotADirectoryError):
        return False


def release(target: str | Path) -> None:
    """Undo `keep`: unmount and remove the file; absent is success. Raises OSError."""
    mount.unmount_all(target)
    Path(target).unlink(missing_ok=True)


async def within_network(path: str | Path, work: Callable[[], T]) -> T:
    """Run `work` inside the network namespace at `path`, in a thread of its own. Raises OSError."""

    def inside() -> T:
        enter(path, Kind.NETWORK)
        return work()

    return await _begun(inside)


async def _begun(work: Callable[[], T]) -> T:
    """As `aside`, with one wait for a processor instead of three: nobody waits for the thread to start.

    `work` must be short, for a cancel waits for it too.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def tell(take: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
            loop.call_soon_threadsafe(take)

    def main() -> None:
        try:
            made = work()
        except BaseException as error:  # noqa: BLE001 - carried over to the caller
            tell(partial(outcome.set_exception, error))
        else:
            tell(partial(outcome.set_result, made))

    _thread.start_new_thread(main, ())
    return await to_its_end(outcome)
