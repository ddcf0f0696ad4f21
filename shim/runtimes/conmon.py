"""Starting a container's monitor and talking to it: sync pipe, pid files, control fifo, what it leaves.

One conmon for each container; it outlives the daemon. Knows conmon, and runtimes only as arguments that it
hands on; what a failure of the runtime means is decided in `oci/commandline.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from oci import monitor as words
from oci.errors import Absent, BadInput, Busy, Deadline, Internal
from oci.monitor import Monitor
from shim import process
from shim.cgroups import Cgroups
from shim.lifecycle.undo import to_the_end
from shim.records import ProcessRef
from shim.runtimes import processtree
from shim.threads import in_executor

T = TypeVar("T")

_STDERR_LIMIT: Final = 4096
_EXIT_TIME: Final = 2.0
"""Seconds that conmon has, after its container's end is recorded, to end too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorFiles:
    """Where conmon keeps what it says about one container."""

    bundle: Path
    run_dir: Path
    id: str

    @property
    def end(self) -> Path:
        """Where conmon writes down the end first, for whatever fails there is the last that it does.

        On the state's disk, which can be full or read-only, it cannot be first.
        """
        return self.run_dir / "ends" / self.id

    @property
    def attach(self) -> Path:
        """The directory of links through which attach sockets are reached with short paths."""
        return self.run_dir / "attach"

    @property
    def link(self) -> Path:
        """The link to the bundle, which conmon makes and 2.1.6 leaves behind."""
        return self.attach / words.link_name(self.id)

    @property
    def attach_socket(self) -> Path:
        """Where conmon takes attach clients. Raises ValueError when the path is too long for a socket."""
        return words.attach_path(self.attach, self.id)

    @property
    def exit_file(self) -> Path:
        return self.end / "exit"

    @property
    def persist(self) -> Path:
        """Survives a reboot, unlike the run directory: the exit code is kept here as well."""
        return self.bundle / "exit"

    @property
    def persistent_exit_file(self) -> Path:
        return self.persist / self.id

    @property
    def earlier(self) -> tuple[Path, ...]:
        """Where monitors write it that were started before the order was turned round."""
        return self.run_dir / "exits" / self.id, self.persist / "exit"

    @property
    def container_pid(self) -> Path:
        return self.bundle / "pidfile"

    @property
    def monitor_pid(self) -> Path:
        return self.bundle / "conmon-pidfile"

    @property
    def control(self) -> Path:
        return self.bundle / "ctl"

    def torn(self) -> list[Path]:
        """Files that conmon or the runtime was killed while writing; runc refuses to write its pid file anew
        while `.pidfile` is there. Blocking."""
        return [
            self.container_pid.with_name(f".{self.container_pid.name}"),
            *self.bundle.glob(f"{self.monitor_pid.name}.*"),
            *self.end.glob("exit.*"),
            *self.persist.glob(f"{self.id}.*"),
            *self.persist.glob("exit.*"),  # this and the next one: of those before, as in `earlier`
            *(self.run_dir / "exits").glob(f"{self.id}.*"),
        ]


class MonitorFailed(Internal):
    """conmon, or the runtime under it, did not create the container. `said` holds their words, "" if none."""

    def __init__(self, message: str, *, said: str = "") -> None:
        super().__init__(message)
        self.said = said


class Monitors:
    """Starts, finds and ends monitors, all in one cgroup of Crisp's own."""

    def __init__(self, *, cgroups: Cgroups, cgroup: str, io: Executor) -> None:
        self._cgroups = cgroups
        self._cgroup = cgroup
        self._io = io

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await in_executor(self._io, work)

    async def create(self, monitor: Monitor, *, timeout: float) -> tuple[int, ProcessRef]:  # noqa: ASYNC109
        """Start conmon, let it create the container, return the container's pid and the monitor.

        Raises MonitorFailed, Deadline after `timeout` seconds, BadInput, Full. On failure no monitor runs;
        what the runtime may have left is the caller's to delete.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._create(monitor)
        except TimeoutError:
            await to_the_end(self.end_all_of(monitor))
            raise Deadline(
                f"conmon of container {monitor.id}: {monitor.runtime.name} create did not end "
                f"within {timeout:g} s"
            ) from None
        except BaseException:
            await to_the_end(self.end_all_of(monitor))
            raise

    async def _create(self, monitor: Monitor) -> tuple[int, ProcessRef]:
        with contextlib.ExitStack() as stack:
            sync_read, sync_write = os.pipe2(os.O_CLOEXEC)
            ours = stack.enter_context(_descriptor(sync_read))
            start_read, start_write = os.pipe2(os.O_CLOEXEC)
            go = stack.enter_context(_descriptor(start_write))
            stderr = stack.enter_context(_descriptor(os.memfd_create("conmon", os.MFD_CLOEXEC)))
            with _descriptor(sync_write), _descriptor(start_read):
                child = await process.spawn(
                    words.monitor_argv(monitor),
                    env=words.monitor_environment(sync=sync_write, start=start_read),
                    cwd=monitor.bundle,  # conmon leaves its `oom` file in the working directory
                    stderr=stderr,
                    pass_fds=(sync_write, start_read),
                )
            try:
                # everything conmon starts inherits its cgroup, so this comes before it starts anything
                await self._blocking(lambda: self._cgroups.place(self._cgroup, child.pid))
                with contextlib.suppress(BrokenPipeError):  # it has failed, and its status says more
                    os.write(go, words.START)
                status = await child.wait()  # it forks itself into the background at once
            except BaseException:
                await child.end(grace=0)
                raise
            said = os.pread(stderr, _STDERR_LIMIT, 0).decode("utf-8", "replace").strip()
            if status != 0:
                raise MonitorFailed(f"conmon of container {monitor.id} failed (status {status}): {said}")
            reply = await _read_reply(ours, monitor.id)
        if reply is None:
            raise MonitorFailed(
                f"conmon of container {monitor.id} ended without an answer{': ' + said if said else ''}"
            )
        if reply.pid <= 0:
            raise MonitorFailed(
                f"conmon of container {monitor.id}: the runtime failed: {reply.message}", said=reply.message
            )
        reference = await self._blocking(lambda: _reference_of(monitor.monitor_pid_file))
        if reference is None:
            raise MonitorFailed(
                f"conmon of container {monitor.id} ended right after it created the container"
            )
        return reply.pid, reference

    async def end(self, ref: ProcessRef, *, grace: float = 0.0) -> None:
        """Wait `grace` seconds for a monitor's own end, then kill it. Raises Internal if it does not die."""
        if grace and await process.wait_gone(ref, grace):
            return
        process.signal(ref, signal.SIGKILL)
        if not await process.wait_gone(ref, _EXIT_TIME):
            raise Internal(f"conmon (process {ref.pid}) did not end after SIGKILL; it hangs in the kernel")

    async def end_all_of(self, monitor: Monitor) -> None:
        """Kill everything in the monitors' cgroup that was started for a bundle, whatever it is by now.

        A pid file is not enough: conmon may have forked and not yet written it.
        """

        def find() -> list[ProcessRef]:
            table = processtree.read_table()
            inside = {pid for pid in self._cgroups.processes(self._cgroup) if pid in table}
            roots = {pid for pid in inside if _names_bundle(pid, monitor.bundle)}
            # whoever works for a living monitor is its descendant, so these have lost theirs
            orphans = {pid for pid in inside if table[pid].parent not in inside and not _is_conmon(pid)}
            family = processtree.members(table, roots | orphans, 0)
            return [table[pid].reference for pid in inside & family]

        await processtree.kill_all(find, io=self._io, timeout=_EXIT_TIME)


def prepare(files: MonitorFiles, log_path: Path | None) -> None:
    """Make what conmon expects and remove what an earlier attempt left. Blocking.

    The log file is made here, because conmon would make it 0600: 0640, its directories 0755. Raises Internal
    naming the log path, BadInput where the attach socket's path would be too long.
    """
    try:
        words.attach_path(files.attach, files.id)
    except ValueError as error:
        raise BadInput(f"run_dir: {error}") from error
    for stale in (files.container_pid, files.monitor_pid, files.link, *files.torn(), *_told(files)):
        stale.unlink(missing_ok=True)
    for stale in words.leftovers(files.bundle):
        stale.unlink(missing_ok=True)
    for directory in (files.end, files.persist):
        directory.mkdir(mode=0o700, exist_ok=True)
    if log_path is not None:
        make_log(log_path)


def make_log(path: Path) -> None:
    """Make a container's log file unless it is there: mode 0640, directories 0755. Blocking."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640
        )
        try:
            os.fchmod(descriptor, 0o640)
        finally:
            os.close(descriptor)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        raise Internal(f"log file {path}: {error.strerror} ({name})") from error


def remove_leftovers(files: MonitorFiles) -> None:
    """Remove what a monitor that is gone has left: link, sockets, fifos, exit and OOM files. Blocking."""
    for path in (files.link, files.container_pid, files.monitor_pid, *files.torn(), *_told(files)):
        path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in words.leftovers(files.bundle):
            path.unlink(missing_ok=True)
    for directory in (files.end, files.persist):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            directory.rmdir()


def _told(files: MonitorFiles) -> tuple[Path, ...]:
    """What a monitor says of the end."""
    notes = files.end / "oom", files.persist / "oom"  # the second of an earlier one
    return files.exit_file, files.persistent_exit_file, *files.earlier, *notes


def monitor_of(files: MonitorFiles) -> ProcessRef | None:
    """The living monitor that the bundle's pid file names, checked to be this container's. Blocking."""
    ref = _reference_of(files.monitor_pid)
    return ref if ref is not None and _is_monitor(ref, files.bundle) else None


def send_control(files: MonitorFiles, message: bytes) -> None:
    """Write to the control fifo. Blocking, but never waits.

    Raises Absent when no monitor reads it, Busy when it does not read fast enough.
    """
    try:
        descriptor = os.open(files.control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, message)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, BrokenPipeError) as error:
        raise Absent(f"conmon of container {files.id} is gone ({files.control})") from error
    except BlockingIOError as error:
        raise Busy(f"conmon of container {files.id} does not read {files.control}") from error
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise Absent(f"conmon of container {files.id} is gone ({files.control})") from error
        raise Internal(f"control of container {files.id}: {files.control}: {error.strerror}") from error


def _reference_of(pid_file: Path) -> ProcessRef | None:
    try:
        pid = words.parse_pid(pid_file.read_bytes())
        return None if pid is None else process.reference(pid)
    except (OSError, Absent):
        return None


def _is_monitor(ref: ProcessRef, bundle: Path) -> bool:
    """Whether a process was started as the monitor of this bundle: a pid file may outlive its process."""
    return _is_conmon(ref.pid) and _names_bundle(ref.pid, bundle) and process.alive(ref)


def _is_conmon(pid: int) -> bool:
    return b"--conmon-pidfile" in _arguments(pid)


def _names_bundle(pid: int, bundle: Path) -> bool:
    """Whether a process was started for this bundle: conmon and the runtime both have it as an argument."""
    return os.fsencode(bundle) in _arguments(pid)


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


@contextlib.contextmanager
def _descriptor(number: int) -> Iterator[int]:
    try:
        yield number
    finally:
        os.close(number)


async def _read_reply(descriptor: int, container: str) -> words.SyncReply | None:
    """The answer on the sync pipe, None for its end without one."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    answered: asyncio.Future[words.SyncReply | None] = loop.create_future()

    def readable() -> None:
        if answered.done():
            return
        try:
            data = os.read(descriptor, words.SYNC_LIMIT)
            received.extend(data)
            reply = words.parse_sync(bytes(received))
        except BlockingIOError:
            return
        except ValueError as error:
            answered.set_exception(MonitorFailed(f"conmon of container {container} answered: {error}"))
            return
        if reply is not None or not data:
            answered.set_result(reply)
        elif len(received) > words.SYNC_LIMIT:
            answered.set_exception(
                MonitorFailed(f"conmon of container {container} answered with no end of line")
            )

    os.set_blocking(descriptor, False)
    loop.add_reader(descriptor, readable)
    try:
        return await answered
    finally:
        loop.remove_reader(descriptor)
