"""The streaming server: URLs out, connections in. HTTP here, everything after it in its own file.

One task a connection. Nothing that a client does ends more than its connection; nothing secret is logged: a
token never, of a fault its kind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Final

from api.streaming import channels
from api.streaming.commands import Conversation, RemoteCommand
from api.streaming.forwarding import ChannelForwarding, Forwarding, SpdyForwarding, TunnelForwarding
from api.streaming.forwards import Forward, ForwardConversation
from api.streaming.remote import Remote, SpdyRemote, WebSocketRemote
from api.streaming.tls import Tls
from api.streaming.tokens import Tokens
from api.streaming.upgrade import (
    Head,
    Kind,
    Refusal,
    Request,
    Spdy,
    Upgrade,
    forward_version,
    negotiate,
    target,
)
from api.streaming.wire import ClientGone, Wire
from oci.errors import Internal

log = logging.getLogger("crisp.streaming")

MAX_UNCLAIMED: Final = 256
"""Connections that have not yet shown a token; more are closed at once."""

_NO_TOKEN: Final = Refusal(status=404, text="this URL was used, has expired, or never was")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """In seconds: `idle` a connection on which nothing moves, `creation` the wait for a client's streams."""

    idle: float
    creation: float


class StreamingServer:
    """Listens at `address` and `port` (0: a free one) between `start` and `stop`."""

    def __init__(self, *, address: str, port: int, limits: Limits, tls: Tls | None = None) -> None:
        self._address = address
        self._port = port
        self._limits = limits
        self._tls = tls
        self._tokens: Tokens[RemoteCommand | Forward] = Tokens(now=time.monotonic)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._unclaimed = 0

    async def start(self) -> None:
        """Raises Internal when it cannot listen, BadInput for a key pair that cannot be used."""
        if self._tls is not None:
            self._tls.context()
        try:
            self._server = await asyncio.start_server(
                self._connected, self._address, self._port, limit=256 * 1024
            )
        except OSError as error:
            raise Internal(f"streaming: cannot listen at {self._address}:{self._port}: {error}") from error
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Take no connections and end those that are: what they started is killed."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def url(self, kind: Kind, request: RemoteCommand | Forward) -> str:
        """Where a client can connect once, within a minute. Raises Full."""
        token = self._tokens.issue(kind, request)
        host = f"[{self._address}]" if ":" in self._address else self._address
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{host}:{self._port}/{kind.value}/{token}"

    def certificate(self) -> bytes:
        """What is shown to who connects now, DER; b"" without TLS."""
        return b"" if self._tls is None else self._tls.certificate()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._unclaimed >= MAX_UNCLAIMED:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="streaming client")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._unclaimed += 1
        wire: Wire | None = None
        try:
            try:
                async with asyncio.timeout(self._limits.creation):
                    if self._tls is not None:
                        await _start_tls(writer, self._tls)
                    wire = Wire(reader, writer, idle=self._limits.idle)
                    found = await self._enter(wire)
            finally:
                self._unclaimed -= 1
            if found is not None:
                await self._converse(wire, *found)
        except (ClientGone, TimeoutError) as error:
            log.debug("a streaming client is gone", extra={"error": str(error)})
        except Exception:
            log.exception("streaming")
        finally:
            if wire is None:
                writer.transport.abort()
            else:
                await wire.close()

    async def _enter(self, wire: Wire) -> tuple[Kind, Upgrade, RemoteCommand | Forward, bytes] | None:
        """Read the request and answer it; what was asked for, and what came behind the request."""
        head = Head()
        found: Request | Refusal | None = None
        while found is None:
            data = await wire.read()
            if not data:
                return None
            found = head.receive(data)
        answer = found if isinstance(found, Refusal) else self._admit(found)
        if isinstance(answer, Refusal):
            log.info("streaming request refused", extra={"status": answer.status, "why": answer.text})
            wire.write(head.refuse(answer))
            await wire.finish()
            return None
        kind, upgrade, request = answer
        wire.write(head.accept(upgrade))
        return kind, upgrade, request, head.rest()

    def _admit(self, request: Request) -> tuple[Kind, Upgrade, RemoteCommand | Forward] | Refusal:
        """A token is used up by the first request that can be served."""
        named = target(request)
        if isinstance(named, Refusal):
            return named
        kind, token = named
        if not self._tokens.known(kind, token):
            return _NO_TOKEN
        upgrade = negotiate(request, kind)
        if isinstance(upgrade, Refusal):
            return upgrade
        claimed = self._tokens.claim(kind, token)
        return _NO_TOKEN if claimed is None else (kind, upgrade, claimed)

    async def _converse(
        self, wire: Wire, kind: Kind, upgrade: Upgrade, request: RemoteCommand | Forward, first: bytes
    ) -> None:
        log.info("streaming begins", extra={"kind": kind.value, "protocol": _name(upgrade)})
        began = time.monotonic()
        try:
            if isinstance(request, Forward):
                await ForwardConversation(wire, _forwarding(upgrade, request), request).run(first)
            else:
                remote = _remote(upgrade, request)
                creation = self._limits.creation
                await Conversation(wire, remote, request, creation=creation).run(first)
        finally:
            seconds = round(time.monotonic() - began, 3)
            log.info("streaming ends", extra={"kind": kind.value, "seconds": seconds})


async def _start_tls(writer: asyncio.StreamWriter, tls: Tls) -> None:
    """Raises ClientGone for a client that does not get through the handshake."""
    try:
        await writer.start_tls(tls.context())
    except OSError as error:  # every failure of OpenSSL is one
        raise ClientGone(f"TLS: {error}") from error


def _name(upgrade: Upgrade) -> str:
    return f"{'SPDY' if isinstance(upgrade, Spdy) else 'WebSocket'} {upgrade.protocol}".strip()


def _remote(upgrade: Upgrade, command: RemoteCommand) -> Remote:
    if isinstance(upgrade, Spdy):
        return SpdyRemote(command.wanted, channels.SPDY[upgrade.protocol])
    return WebSocketRemote(command.wanted, channels.WEBSOCKET[upgrade.protocol])


def _forwarding(upgrade: Upgrade, forward: Forward) -> Forwarding:
    if isinstance(upgrade, Spdy):
        return SpdyForwarding()
    version = forward_version(upgrade.protocol)
    return TunnelForwarding() if version is None else ChannelForwarding(forward.ports, version)
