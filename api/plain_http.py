"""A few documents over HTTP/1.1: for cAdvisor on a unix socket, and for who scrapes metrics.

One task a connection, bounded in number and in silence; what is asked in a body is passed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h11

from oci.errors import Internal

log = logging.getLogger(__name__)

_IDLE = 300.0
"""Seconds that a connection may be silent; cAdvisor keeps one and asks when a container comes."""

_MOST = 32
"""Connections at the same time; a further one is closed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "application/json"


class PlainHttp:
    """Listens from `start` to `stop`; `answer` is given method and target, and does not wait."""

    def __init__(self, answer: Callable[[str, str], Answer]) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start_unix(self, path: Path) -> None:
        self._server = await asyncio.start_unix_server(self._connected, path)

    async def start_tcp(self, address: str, port: int) -> int:
        """The port, which is a free one for 0. Raises Internal."""
        try:
            self._server = await asyncio.start_server(self._connected, address, port)
        except OSError as failure:
            reason = (failure.strerror or str(failure)).lower()
            raise Internal(f"metrics.address: listening at {address} port {port}: {reason}") from failure
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= _MOST:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
            log.debug("a connection ended", extra={"error": str(error)})
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER)
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(_IDLE):
                    http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                asked = event
            elif isinstance(event, h11.EndOfMessage):
                method, target = asked.method.decode("ascii"), asked.target.decode("ascii", "replace")
                answer = self._answer(method, target)
                headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
                events: list[h11.Event] = [h11.Response(status_code=answer.status, headers=headers)]
                events += [] if method == "HEAD" else [h11.Data(data=answer.body)]
                writer.write(b"".join(http.send(event) or b"" for event in (*events, h11.EndOfMessage())))
                async with asyncio.timeout(_IDLE):
                    await writer.drain()
                if http.our_state is not h11.DONE:
                    return
                http.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return
