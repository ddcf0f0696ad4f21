"""The publishing side of events, as each shim needs it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from shim.runtimes.shimv2.proto import events_pb2, task_events_pb2
from shim.runtimes.shimv2.ttrpc.client import Client
from tests.doubles.shims.ways import Need

SERVICE = "containerd.services.events.ttrpc.v1.Events"
_TIME = 2.0


def reachable(address: str) -> bool:
    """Whether somebody takes connections there. Blocking."""
    with socket.socket(socket.AF_UNIX) as made:
        try:
            made.connect(address)
        except OSError:
            return False
    return True


class Publisher:
    """Publishes one event after the other; `need` says what becomes of a shim whose events nobody takes."""

    def __init__(self, address: str, need: Need, namespace: str) -> None:
        self._address = address
        self._need = need
        self._namespace = namespace
        self._client: Client | None = None
        self._turn = asyncio.Lock()

    async def publish(self, topic: str, event: Message) -> None:
        """Returns when it is taken, or given up."""
        request = events_pb2.ForwardRequest()
        request.envelope.timestamp.FromNanoseconds(time.time_ns())
        request.envelope.namespace = self._namespace
        request.envelope.topic = topic
        request.envelope.event.type_url = event.DESCRIPTOR.full_name
        request.envelope.event.value = event.SerializeToString()
        async with self._turn:
            try:
                await self._forward(request)
            except Exception as error:  # noqa: BLE001 - whatever it is, the event is not taken
                print(f"level=error msg={f'publishing {topic}: {error}'!r}", file=sys.stderr, flush=True)
                if self._need is Need.PANIC:
                    print("panic: failed to publish event", file=sys.stderr, flush=True)
                    os._exit(2)

    async def _forward(self, request: Message) -> None:
        if self._client is None or self._client.closed:
            made = socket.socket(socket.AF_UNIX)
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, self._address)
            self._client = Client(made, name="events")
        await self._client.call(SERVICE, "Forward", request, empty_pb2.Empty, timeout=_TIME)


TaskOOM = task_events_pb2.TaskOOM
TaskExit = task_events_pb2.TaskExit
