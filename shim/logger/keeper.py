"""The daemon's end of the log process: starts it, speaks to it, starts it again when it was killed.

The process is shared by all handlers of a node and outlives the daemon; one that runs is taken over. Every
request can be repeated, so none is lost with a connection. Nothing is started before the first container.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oci.errors import Absent, CrispError, Internal
from shim import process
from shim.cgroups import Cgroups
from shim.files import make_private_directory
from shim.records import ProcessRef
from shim.threads import in_thread, taken_in_thread

log = logging.getLogger(__name__)

_PACKET: Final = 1 << 16
_START_TIME: Final = 20.0
_ATTEMPTS: Final = 5
_PAUSE: Final = 0.2
_END_TIME: Final = 5.0
_CREDENTIALS: Final = struct.Struct("3i")
_ROOT: Final = Path(__file__).resolve().parents[2]
_PROGRAM: Final = (
    f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from shim.logger.main import main; main(sys.argv[1])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlet:
    """What the log process needs of one container; "" for what there is not."""

    id: str
    stdout: str = ""
    stderr: str = ""
    stdin: str = ""
    log: str = ""
    tty: bool = False
    stdin_once: bool = False

    def words(self) -> list[bytes]:
        flags = ("t" if self.tty else "") + ("o" if self.stdin_once else "")
        names = (self.id, self.stdout, self.stderr, self.stdin, self.log, flags)
        return [os.fsencode(name) for name in names]


class Lost(Internal):
    """The log process went away."""


class LogKeeper:
    """`directory` is the process's own; `cgroup` the one of monitors, which `place` puts it into.

    `on_input_ended(id)` is called when a container's input was ended by its client.
    """

    def __init__(self, *, directory: Path, cgroups: Cgroups, cgroup: str) -> None:
        self._directory = directory
        self._cgroups = cgroups
        self._cgroup = cgroup
        self._opening = asyncio.Lock()
        self._socket: socket.socket | None = None
        self._answers: dict[bytes, asyncio.Future[list[bytes]]] = {}
        self._number = 0
        self._reading: dict[str, list[int]] = {}
        self._listeners: dict[str, Callable[[], None]] = {}
        self._restart: asyncio.Task[None] | None = None
        self._children: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def socket_path(self) -> Path:
        """Where attach clients connect."""
        return self._directory / "socket"

    @property
    def events(self) -> Path:
        """Where shims publish, once something was added; it stays there without the daemon."""
        return self._directory / "events"

    async def add(self, outlet: Outlet, *, on_input_ended: Callable[[], None] | None = None) -> None:
        """Read a container's fifos from now on, which exist; one that is read already goes on."""
        if outlet.id not in self._reading:
            held = await taken_in_thread(lambda: _hold(outlet), _release)
            _release(self._reading.pop(outlet.id, []))
            self._reading[outlet.id] = held
        if on_input_ended is not None:
            self._listeners[outlet.id] = on_input_ended
        answer = await self._ask(b"add", *outlet.words())
        if answer[:1] == [b"closed"] and on_input_ended is not None:
            on_input_ended()  # while no daemon was there

    async def drain(self, container: str) -> None:
        """Wait until everything that the container wrote is in its log: the writers have closed it."""
        with contextlib.suppress(Absent):
            await self._ask(b"drain", container.encode())

    async def oom(self, container: str, *, wait: float) -> bool:
        """Whether its shim says that the kernel killed something in the container for want of memory.

        `wait` is how many seconds that may come from now on.
        """
        words = (container.encode(), b"wait") if wait > 0 else (container.encode(),)
        try:
            async with asyncio.timeout(wait or None):
                return await self._ask(b"oom", *words) == [b"killed"]
        except (Absent, TimeoutError):
            return False

    async def reopen(self, container: str) -> None:
        """Write to the file at the log path from now on. Raises Absent when the container is not read."""
        await self._ask(b"reopen", container.encode())

    async def remove(self, container: str) -> None:
        """Read no more; absent is success. Starts no process for it."""
        _release(self._reading.pop(container, []))
        self._listeners.pop(container, None)
        if self._socket is None and not await in_thread((self._directory / "outlets" / container).exists):
            return
        with contextlib.suppress(Absent):
            await self._ask(b"remove", container.encode())

    async def attach(self, container: str) -> socket.socket:
        """A connection that carries a container's output and input, framed as conmon does. Raises Absent."""
        await self._open()
        made = await taken_in_thread(self._connect, socket.socket.close)
        try:
            loop = asyncio.get_running_loop()
            made.setblocking(False)
            await loop.sock_sendall(made, b"\0".join((b"attach", b"0", container.encode())))
            answer = (await loop.sock_recv(made, _PACKET)).split(b"\0")
            if answer[1:2] != [b"ok"]:
                raise Absent(f"attach: the output of container {container} is not read any more")
        except BaseException:
            made.close()
            raise
        return made

    async def pid(self) -> int:
        """The process's number."""
        return int((await self._ask(b"ping"))[0])

    async def close(self) -> None:
        """Let go; the process stays as long as it has something to read."""
        self._closed = True
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
        idle = not self._reading
        for held in self._reading.values():
            _release(held)
        self._reading.clear()
        served = self._peer()
        self._drop()
        if idle and served is not None and await process.wait_gone(served, _END_TIME):
            await asyncio.gather(*self._children)
            with contextlib.suppress(CrispError):
                await in_thread(self._cgroups.remove, self._cgroup)
        for reaping in self._children:
            reaping.cancel()
        await asyncio.gather(*self._children, return_exceptions=True)

    # ---- the parts

    async def _ask(self, verb: bytes, *words: bytes) -> list[bytes]:
        for attempt in range(_ATTEMPTS):
            await self._open()
            try:
                return await self._exchange(verb, words)
            except Lost:
                if attempt == _ATTEMPTS - 1 or self._closed:
                    raise
        raise AssertionError

    async def _exchange(self, verb: bytes, words: tuple[bytes, ...]) -> list[bytes]:
        if self._socket is None:
            raise Lost("the log process is gone")
        self._number += 1
        number = b"%d" % self._number
        loop = asyncio.get_running_loop()
        future = self._answers[number] = loop.create_future()
        try:
            await loop.sock_sendall(self._socket, b"\0".join((verb, number, *words)))
            answer: list[bytes] = await future
        except OSError as error:
            self._was_lost()
            raise Lost(f"the log process is gone ({error.strerror})") from error
        finally:
            self._answers.pop(number, None)
        if answer[0] == b"absent":
            raise Absent(f"the log process does not read container {words[0].decode()}")
        if answer[0] != b"ok":
            raise Internal(
                f"log process: {verb.decode()}: {b' '.join(answer[1:]).decode('utf-8', 'replace')}"
            )
        return answer[1:]

    async def _open(self) -> None:
        async with self._opening:
            if self._socket is not None:
                return
            for _ in range(_ATTEMPTS):
                try:
                    made = await taken_in_thread(self._connect, socket.socket.close)
                except OSError:
                    await self._start()
                    continue
                if self._closed:
                    made.close()
                    raise Lost("the daemon stops")
                made.setblocking(False)
                self._socket = made
                asyncio.get_running_loop().add_reader(made, self._readable)
                return
            raise Internal(f"log process: nobody answers at {self.socket_path}, though it was started")

    def _peer(self) -> ProcessRef | None:
        """The log process at the other end."""
        if self._socket is None:
            return None
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        with contextlib.suppress(Absent):
            return process.reference(_CREDENTIALS.unpack(credentials)[0])
        return None

    def _connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            made.connect(str(self.socket_path))
        except BaseException:
            made.close()
            raise
        return made

    async def _start(self) -> None:
        await in_thread(make_private_directory, self._directory)
        await in_thread(self._cgroups.make, self._cgroup)
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            try:
                child = await process.spawn(
                    [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, self._directory], stdout=writing
                )
            finally:
                os.close(writing)
            await in_thread(self._cgroups.place, self._cgroup, child.pid)
            reaping = asyncio.get_running_loop().create_task(_reap(child), name="log process")
            self._children.add(reaping)
            reaping.add_done_callback(self._children.discard)
            if not await _first_byte(reading):
                raise Internal(f"log process: it ended as soon as it was started ({self._directory})")
            log.info("log process started", extra={"child": child.pid})
        finally:
            os.close(reading)

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            packet = self._socket.recv(_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._was_lost()
            return
        words = packet.split(b"\0")
        if words[:2] == [b"", b"input-ended"]:
            listener = self._listeners.get(words[2].decode())
            if listener is not None:
                listener()
            return
        future = self._answers.get(words[0])
        if future is not None and not future.done():
            future.set_result(words[1:])

    def _was_lost(self) -> None:
        self._drop()
        if self._reading and not self._closed and self._restart is None:
            log.warning("the log process is gone and is started again")
            self._restart = asyncio.get_running_loop().create_task(self._again(), name="log process")

    def _drop(self) -> None:
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        for future in self._answers.values():
            if not future.done():
                future.set_exception(Lost("the log process is gone"))

    async def _again(self) -> None:
        """Containers write on meanwhile, and stand still once their fifos are full."""
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    await self._open()
                    return
                except CrispError as error:
                    log.error("the log process cannot be started", extra={"error": str(error)})
                    await asyncio.sleep(_PAUSE * 2**attempt)
        finally:
            self._restart = None


def _hold(outlet: Outlet) -> list[int]:
    """Keep a fifo's bytes alive while the log process is not there: with its last reader they would go."""
    opened: list[int] = []
    try:
        for path in (outlet.stdout, outlet.stderr):
            if path:
                opened.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        _release(opened)
        raise Internal(f"log process: {error.filename}: {error.strerror}") from error
    return opened


def _release(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


async def _reap(child: process.Child) -> None:
    await child.wait()


async def _first_byte(descriptor: int) -> bytes:
    """What comes first, b"" at the end without a word. Raises Internal when nothing comes in time."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(descriptor, readable.set_result, None)
    try:
        async with asyncio.timeout(_START_TIME):
            await readable
    except TimeoutError:
        raise Internal(f"log process: not ready within {_START_TIME:g} s") from None
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 1)
