"""Port forwarding: between one client's conversation and the connections into the pod.

Each forwarded connection is two copies, one each way, that end on their own. What the pod does not take waits
in memory, up to a limit for the whole session; then the client is no longer read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from api.streaming.events import Aborted, Connect, ForwardEvent, Gone, HalfClosed, Received, Reply
from api.streaming.forwarding import Forwarding
from api.streaming.wire import ClientGone, Wire
from oci.errors import CrispError

log = logging.getLogger("crisp.streaming")

KEPT: Final = 16 * 1024 * 1024
"""Bytes of one session that may wait for the pod."""
_READ: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """What a port-forward URL stands for. `dial` makes a connection to a port of the pod's loopback."""

    ports: tuple[int, ...]
    dial: Callable[[int], Awaitable[socket.socket]]


@dataclass(slots=True)
class _Connection:
    """One forwarded connection: what waits for the pod, and whether more will come."""

    queue: list[bytes] = field(default_factory=list)
    waiting: int = 0
    ended: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    aborted: bool = False


class ForwardConversation:
    """One connection, from the answer 101 on."""

    def __init__(self, wire: Wire, core: Forwarding, forward: Forward) -> None:
        self._wire = wire
        self._core = core
        self._forward = forward
        self._loop = asyncio.get_running_loop()
        self._connections: dict[int, _Connection] = {}
        self._waiting = 0
        self._room = asyncio.Event()
        self._all_done = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False

    async def run(self, first: bytes) -> None:
        """To the end; `first` came right behind the request. Raises ClientGone."""
        hearing = asyncio.ensure_future(self._follow(first))
        done = asyncio.ensure_future(self._all_done.wait())
        try:
            await asyncio.wait({hearing, done}, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                hearing.result()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            tasks = [each.task for each in self._connections.values() if each.task is not None]
            for task in (hearing, done, *tasks):
                task.cancel()
            await asyncio.gather(hearing, done, *tasks, return_exceptions=True)
        self._wire.write(self._core.goodbye())
        await self._wire.finish(
            lambda data: any(isinstance(e, Gone) for e in self._core.receive(data, self._loop.time()))
        )

    async def _follow(self, first: bytes) -> None:
        await self._act(self._core.opening())
        data = first
        while not self._gone:
            if data:
                await self._act(self._core.receive(data, self._loop.time()))
                self._set_timer()
            if not self._gone:
                data = await self._wire.read()
                if not data:
                    return

    async def _act(self, events: Sequence[ForwardEvent]) -> None:
        for event in events:
            if isinstance(event, Reply):
                await self._wire.send(event.data)
            elif isinstance(event, Gone):
                if event.fault:
                    log.info("a streaming client broke the protocol", extra={"fault": event.fault})
                self._gone = True
            elif isinstance(event, Connect):
                self._begin(event)
            else:
                await self._pass(event)

    def _begin(self, event: Connect) -> None:
        connection = self._connections[event.key] = _Connection()
        connection.task = self._loop.create_task(
            self._carry(event.key, event.port, connection), name=f"forward {event.port}"
        )

    async def _pass(self, event: Received | HalfClosed | Aborted) -> None:
        connection = self._connections.get(event.key)
        if connection is None:
            return
        if isinstance(event, Aborted):
            connection.aborted = True
            if connection.task is not None:
                connection.task.cancel()
            return
        if isinstance(event, HalfClosed):
            connection.ended = True
            connection.changed.set()
            return
        connection.queue.append(event.data)
        connection.waiting += len(event.data)
        self._waiting += len(event.data)
        connection.changed.set()
        while self._waiting > KEPT:
            self._room.clear()
            await self._wire.deliver(_wait(self._room))

    def _set_timer(self) -> None:
        due = self._core.due()
        if self._timer is None and due is not None:
            self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        for event in self._core.expire(self._loop.time()):
            if isinstance(event, Reply):
                self._wire.write(event.data)
        self._set_timer()

    async def _carry(self, key: int, port: int, connection: _Connection) -> None:
        """One connection from its dialling to its end."""
        try:
            try:
                pod = await self._forward.dial(port)
            except CrispError as error:
                log.info("port forwarding", extra={"error": str(error)})
                await self._wire.send(self._core.fail(key, str(error)))
                return
            try:
                await self._copy(key, pod, connection)
            finally:
                if connection.aborted:  # the client's reset becomes the pod's
                    with contextlib.suppress(OSError):
                        pod.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                pod.close()
        except ClientGone:
            self._wire.abort()
        finally:
            self._connections.pop(key, None)
            self._taken(connection.waiting)
            if not self._connections and not self._core.lasting:
                self._all_done.set()

    async def _copy(self, key: int, pod: socket.socket, connection: _Connection) -> None:
        up = asyncio.ensure_future(self._up(pod, connection))
        down = asyncio.ensure_future(self._down(key, pod))
        try:
            done, _ = await asyncio.wait({up, down}, return_when=asyncio.FIRST_EXCEPTION)
            for each in done:
                each.result()
        except OSError:
            await self._wire.send(self._core.abort(key))
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _up(self, pod: socket.socket, connection: _Connection) -> None:
        while True:
            if connection.queue:
                data = connection.queue.pop(0) if len(connection.queue) == 1 else b"".join(connection.queue)
                connection.queue.clear()
                await self._loop.sock_sendall(pod, data)
                connection.waiting -= len(data)
                self._taken(len(data))
            elif connection.ended:
                pod.shutdown(socket.SHUT_WR)
                return
            else:
                connection.changed.clear()
                await connection.changed.wait()

    async def _down(self, key: int, pod: socket.socket) -> None:
        while data := await self._loop.sock_recv(pod, _READ):
            await self._wire.send(self._core.send(key, data))
        await self._wire.send(self._core.finish(key))

    def _taken(self, count: int) -> None:
        self._waiting -= count
        if self._waiting <= KEPT:
            self._room.set()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
