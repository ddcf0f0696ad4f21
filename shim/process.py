"""The one door for child processes: started from a list, with a built environment, bounded and always reaped.

It knows nothing of what it runs. Children are started in a thread, by a vfork that stops no other thread (no
Python code may run between fork and exec once grpc has threads), and are watched by pidfd: no signal handler
and no child watcher of asyncio is involved.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal as signals
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oci.errors import Absent, BadInput, CrispError, Deadline, Full, Internal
from shim.kernel import pidfd
from shim.kernel import spawn as kernel
from shim.priority import ordinary_children
from shim.records import ProcessRef

log = logging.getLogger(__name__)

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GRACE: Final = 2.0
"""Seconds between TERM and KILL when a child is ended early."""
DYING: Final = 10.0
"""Seconds that a killed child may take to die before it is left behind."""
DRAIN: Final = 0.2
"""Seconds that output is still read for after the child's exit, when a survivor of it holds the pipe."""

_CHUNK = 1 << 16
_TAIL = 2048
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a command ended: exit status (-n after signal n) and what it wrote, cut at the output limit."""

    returncode: int
    stdout: bytes
    stderr: bytes


class CommandFailed(Internal):
    """A command ended with a status that the caller did not list as good."""

    def __init__(self, command: str, result: Result) -> None:
        status = result.returncode
        how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
        words = _tail(result.stderr) or _tail(result.stdout) or "it wrote nothing"
        super().__init__(f"{command} {how}: {words}")
        self.command = command
        self.result = result

    @property
    def returncode(self) -> int:
        return self.result.returncode

    @property
    def stderr(self) -> bytes:
        return self.result.stderr


class CommandTimedOut(Deadline):
    """A command did not end in its time; its process group has been killed."""

    def __init__(self, command: str, timeout: float, result: Result) -> None:
        words = _tail(result.stderr)
        super().__init__(f"{command} did not end within {timeout:.3g} s{': ' + words if words else ''}")
        self.command = command
        self.result = result


class CommandMissing(Internal):
    """A command could not be executed at all: not there, not executable, of another architecture."""

    def __init__(self, command: str, error: OSError) -> None:
        where = f" ({error.filename})" if error.filename and str(error.filename) != command else ""
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        super().__init__(f"{command} cannot be executed{where}: {os.strerror(error.errno or 0)} ({name})")
        self.command = command
        self.errno = error.errno


def _tail(output: bytes) -> str:
    return " ".join(output[-_TAIL:].decode("utf-8", "replace").split())


class Child:
    """A started child that leads its own process group.

    Whoever holds it awaits `wait` or `end`: one of them reaps. Belongs to the loop that started it.
    """

    def __init__(self, pid: int, command: str) -> None:
        self.command = command
        self.pid = pid
        self._status: int | None = None
        self._pidfd = os.pidfd_open(pid)  # valid even for a child that has ended: it is not reaped yet
        self._exited = asyncio.get_running_loop().create_future()
        self._unwatch = pidfd.on_exit(self._pidfd, self._on_exit)

    def reference(self) -> ProcessRef:
        """The child as a value; exact as long as it has not been reaped. Raises Absent afterwards."""
        return reference(self.pid)

    def signal(self, number: int) -> bool:
        """Send a signal to the child alone; False when it has ended."""
        return self._pidfd >= 0 and pidfd.send(self._pidfd, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the child's whole process group; nothing once it has been reaped."""
        if self._status is None:  # not reaped: the number is still the child's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def exited(self) -> None:
        """Wait until the child has ended, without reaping it."""
        await asyncio.shield(self._exited)

    async def wait(self) -> int:
        """Wait for the end, reap, and return the exit status (-n after signal n). Repeatable."""
        await self.exited()
        return self.reap()

    def reap(self) -> int:
        """The exit status of a child whose `exited` has returned; a thread collects it."""
        if self._status is None:
            self._status = _status(self._pidfd)
            # Here the kernel forgets what it shows of the child in /proc: on a busy machine up to 100 ms.
            asyncio.get_running_loop().run_in_executor(None, os.waitpid, self.pid, 0)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        return self._status

    async def end(self, *, grace: float = GRACE) -> int:
        """TERM to the group, `grace` seconds, KILL to the group, reap; a cancel takes effect afterwards.

        The group is killed before the leader is reaped, so its number cannot have become another's. A child
        that the kernel does not let die (state D) within `DYING` seconds is left to be reaped later.
        """
        loop = asyncio.get_running_loop()
        if not self._exited.done():
            self.signal_group(signals.SIGTERM)
            self.signal_group(signals.SIGCONT)  # a stopped process takes no TERM
        cancelled = await self._outlast(loop.time() + grace)
        self.signal_group(signals.SIGKILL)
        cancelled = await self._outlast(loop.time() + DYING) or cancelled
        if self._exited.done():
            status = self.reap()
        else:
            log.warning("a killed child does not die", extra={"child": self.pid, "command": self.command})
            self._exited.add_done_callback(lambda _: self.reap())
            status = -signals.SIGKILL
        if cancelled is not None:
            raise cancelled
        return status

    async def _outlast(self, end: float) -> asyncio.CancelledError | None:
        """Wait for the exit until `end` (loop time) whatever cancels this; the last cancel, if any."""
        loop = asyncio.get_running_loop()
        cancelled: asyncio.CancelledError | None = None
        while not self._exited.done() and loop.time() < end:
            try:
                await asyncio.wait((self._exited,), timeout=end - loop.time())
            except asyncio.CancelledError as error:
                cancelled = error
        return cancelled

    def _on_exit(self) -> None:
        if not self._exited.done():
            self._exited.set_result(None)


async def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start a child whose descriptors the caller owns (and closes); None is /dev/null.

    `env` is all that the child gets, besides a PATH with the sbin directories. A cancel meanwhile strikes at
    the caller's next await, when it holds the child and can end it in its own way. Raises CommandMissing,
    BadInput (argument list too long, NUL in it), Full (no more processes or descriptors).
    """
    words = [os.fspath(word) for word in argv]
    command = words[0]

    def start() -> int:
        ordinary_children()
        return kernel.start(
            words, {"PATH": PATH, **(env or {})},
            stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, keep=pass_fds,
        )  # fmt: skip

    pid = 0
    starting = asyncio.get_running_loop().run_in_executor(None, start)
    postponed = False
    while not starting.done():
        try:
            await asyncio.wait((starting,))
        except asyncio.CancelledError:
            postponed = True
    if postponed and (task := asyncio.current_task()) is not None:
        task.uncancel()  # so that a timeout which counts cancels still knows its own
        task.cancel()
    try:
        pid = starting.result()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("started a child", extra={"argv": words, "child": pid})
        return Child(pid, command)
    except (OSError, ValueError) as error:
        if pid:  # no descriptor left for the pidfd
            os.kill(pid, signals.SIGKILL)
            os.waitpid(pid, 0)  # noqa: ASYNC222 - it is dead
        raise _start_failure(command, error) from error


def _status(descriptor: int) -> int:
    """The exit status, -n after signal n, of a child that has ended; it stays to be reaped."""
    ended = os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _start_failure(command: str, error: OSError | ValueError) -> CrispError:
    if isinstance(error, ValueError):
        return BadInput(f"command line of {command}: {error}")
    if error.errno == errno.E2BIG:
        return BadInput(
            f"command line of {command}: too long for execve (E2BIG): an argument or environment value "
            "over 128 KiB, or all of them over a quarter of the stack limit"
        )
    if error.errno in _EXHAUSTED:
        name = errno.errorcode[error.errno]
        return Full(f"starting {command}: {os.strerror(error.errno)} ({name})")
    return CommandMissing(command, error)


class OutputReader:
    """Collects one pipe up to a limit, and reads on past it so that the writer never blocks.

    Give `write` to a child, then `start`; `closed` is done when every holder of the pipe has closed it.
    """

    def __init__(self, limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._kept = bytearray()
        self.closed = self._loop.create_future()
        self._read, self.write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)

    def start(self) -> None:
        """The child has its copy of the write end: drop ours, begin to read."""
        os.close(self.write)
        self.write = -1
        self._loop.add_reader(self._read, self._on_readable)

    def _on_readable(self) -> None:
        self._take()

    def _take(self) -> bool:
        try:
            data = os.read(self._read, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        room = self._limit - len(self._kept)
        if room > 0:
            self._kept += data[:room]
        return True

    def take_rest(self) -> None:
        """Read what lies in the pipe now (a pipe's capacity at most) and close it. Repeatable."""
        for _ in range(16):
            if self._read < 0 or not self._take():
                break
        self.close()

    def close(self) -> None:
        if self.write >= 0:
            os.close(self.write)
            self.write = -1
        if self._read >= 0:
            self._loop.remove_reader(self._read)
            os.close(self._read)
            self._read = -1
        if not self.closed.done():
            self.closed.set_result(None)

    def inode(self) -> int:
        """What identifies the pipe in /proc/PID/fd ("pipe:[INODE]"); only before `closed`."""
        return os.fstat(self._read).st_ino

    def __bytes__(self) -> bytes:
        return bytes(self._kept)


async def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float,  # noqa: ASYNC109 - a limit that ends the child too, not only the waiting
    ok: Container[int] = (0,),
    stdin: bytes | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    output_limit: int = 1 << 20,
    on_spawn: Callable[[int], None] | None = None,
) -> Result:
    """Run a command to its end and return its output.

    `timeout` is in seconds; `stdin` None is /dev/null; each stream keeps its first `output_limit` bytes and
    the rest is dropped. `on_spawn` gets the pid as soon as the child runs. On timeout or cancel the whole
    process group gets TERM, then KILL, and is reaped before this returns. A process that outlives the child
    and holds its output delays the return by `DRAIN` at most. Raises CommandFailed for a status not in `ok`,
    CommandTimedOut, CommandMissing, BadInput, Full.
    """
    with contextlib.ExitStack() as stack:
        try:
            out, err = OutputReader(output_limit), OutputReader(output_limit)
            stack.callback(out.close)
            stack.callback(err.close)
            source = None if stdin is None else stack.enter_context(_file_of(stdin))
        except OSError as error:
            raise _start_failure(os.fspath(argv[0]), error) from error
        child = await spawn(
            argv, env=env, stdin=source, stdout=out.write, stderr=err.write, cwd=cwd, pass_fds=pass_fds
        )
        out.start()
        err.start()
        try:
            if on_spawn is not None:
                on_spawn(child.pid)
            async with asyncio.timeout(timeout):
                await child.exited()
        except TimeoutError:
            await child.end()
            result = Result(returncode=child.reap(), stdout=bytes(out), stderr=bytes(err))
            raise CommandTimedOut(child.command, timeout, result) from None
        except BaseException:
            await child.end()
            raise
        status = child.reap()
        if not (out.closed.done() and err.closed.done()):
            await asyncio.wait((out.closed, err.closed), timeout=DRAIN)
            out.take_rest()
            err.take_rest()
        result = Result(returncode=status, stdout=bytes(out), stderr=bytes(err))
    if status not in ok:
        raise CommandFailed(child.command, result)
    return result


@contextlib.contextmanager
def _file_of(data: bytes) -> Iterator[int]:
    """Input as an unnamed file: any size, nothing to write later, no SIGPIPE when it is not read."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def start_time(pid: int) -> int:
    """Start time of a process in clock ticks after boot. Raises Absent."""
    stat = pidfd.read_stat(pid)
    if stat is None:
        raise Absent(f"process {pid} does not exist")
    return stat[1]


def reference(pid: int) -> ProcessRef:
    """The process that has this number now. Raises Absent."""
    return ProcessRef(pid=pid, start_time=start_time(pid))


def alive(ref: ProcessRef) -> bool:
    """Whether that very process still runs; a zombie does not."""
    stat = pidfd.read_stat(ref.pid)
    return stat is not None and stat[1] == ref.start_time and not pidfd.is_dead(stat[0])


def signal(ref: ProcessRef, number: int) -> bool:
    """Send a signal to that very process, never to a later one of its number; False when it is gone."""
    descriptor = pidfd.open_process(ref)
    if descriptor is None:
        return False
    try:
        return pidfd.send(descriptor, number)
    finally:
        os.close(descriptor)


async def wait_gone(ref: ProcessRef, timeout: float) -> bool:  # noqa: ASYNC109 - the answer tells
    """Wait until that process has ended (reaped or not); False when `timeout` seconds were not enough."""
    descriptor = pidfd.open_process(ref)
    if descriptor is None:
        return True
    gone = asyncio.Event()
    unwatch = pidfd.on_exit(descriptor, gone.set)
    try:
        async with asyncio.timeout(timeout):
            await gone.wait()
        return True
    except TimeoutError:
        return False
    finally:
        unwatch()
        os.close(descriptor)
