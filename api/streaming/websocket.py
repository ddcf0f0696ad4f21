"""WebSocket messages after the handshake (RFC 6455), in pieces as they arrive; no IO.

A thin coat around wsproto: pings are answered, a close is answered, a broken peer is told so. Pieces of a
message are handed on as they come, so that no message, however long, is held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from api.streaming.events import Gone, Reply

NORMAL = 1000
PROTOCOL_ERROR = 1002
INVALID = 1007
TOO_SLOW = 1008
INTERNAL = 1011
"""Close codes (RFC 6455, 7.4.1)."""

_REASON_LIMIT = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a message. `first` and `last` tell where a message begins and ends."""

    data: bytes
    first: bool
    last: bool


MessageEvent = Piece | Reply | Gone


class Messages:
    """One end of a connection whose handshake is done."""

    def __init__(self, *, client: bool = False) -> None:
        self._connection = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)
        self._inside = False
        self._over = False
        self.close_code = 0  # with which the peer closed

    def receive(self, data: bytes) -> Iterator[MessageEvent]:
        """The pieces in `data`, and what must be answered, one after the other as they are taken.

        After Gone nothing more comes.
        """
        if self._over:
            return
        self._connection.receive_data(data)
        for event in self._connection.events():
            if isinstance(event, BytesMessage | TextMessage):
                piece = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
                last = event.message_finished
                if piece or last:
                    first, self._inside = not self._inside, not last
                    yield Piece(data=piece, first=first, last=last)
            elif isinstance(event, Ping):
                if self._connection.state is ConnectionState.OPEN:
                    yield Reply(data=self._connection.send(event.response()))
            elif isinstance(event, CloseConnection):
                yield from self._closed(event)
                return

    def _closed(self, event: CloseConnection) -> list[MessageEvent]:
        self._over = True
        self.close_code = int(event.code)
        state = self._connection.state
        if state is ConnectionState.REMOTE_CLOSING:
            return [Reply(data=self._connection.send(event.response())), Gone()]
        if state is ConnectionState.OPEN:  # not a close frame but wsproto's word on a broken one
            fault = f"a message that is no WebSocket message: {event.reason}"
            return [Reply(data=self._connection.send(event)), Gone(fault=fault)]
        return [Gone()]

    def binary(self, data: bytes) -> bytes:
        """A message of bytes; nothing once the connection is closing."""
        return self._send(BytesMessage(data=data))

    def text(self, data: str) -> bytes:
        """A message of text; nothing once the connection is closing."""
        return self._send(TextMessage(data=data))

    def ping(self) -> bytes:
        return self._send(Ping(payload=b""))

    def close(self, code: int = NORMAL, reason: str = "") -> bytes:
        """The close frame; nothing once one was sent. `reason` is cut to what a control frame holds."""
        cut = reason.encode("utf-8", "replace")[:_REASON_LIMIT].decode("utf-8", "ignore")
        return self._send(CloseConnection(code=code, reason=cut or None))

    def _send(self, event: BytesMessage | TextMessage | Ping | CloseConnection) -> bytes:
        if self._connection.state is not ConnectionState.OPEN:
            return b""
        return self._connection.send(event)
