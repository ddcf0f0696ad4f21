"""Lists as bytes: the wire form of each record is kept until the record changes.

kubelet asks for every pod and container each second, and next to none of them has changed. Serialized
messages that follow one another are the message with all their items (protobuf.dev, "Encoding", "Last One
Wins"), so a list is a join of what is kept. Knows no record and no RPC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from api.changes import Feed
from shim.state.store import Change


class Identified(Protocol):
    @property
    def id(self) -> str: ...


Record = TypeVar("Record", bound=Identified)


class Listing(Generic[Record]):
    """Of one kind of record; `show` makes the list that has only it. Belongs to the event loop."""

    def __init__(self, feed: Feed, kind: type[Record], show: Callable[[Record], Message]) -> None:
        self._kind = kind
        self._show = show
        self._kept: dict[str, bytes] = {}
        feed.subscribe(self._forget)

    def pieces(self, records: Iterable[Record]) -> list[bytes]:
        """One a record, in order; any of them joined are the list of their records."""
        kept = self._kept
        found = []
        for record in records:
            piece = kept.get(record.id)
            if piece is None:
                piece = kept[record.id] = self._show(record).SerializeToString()
            found.append(piece)
        return found

    def message(self, records: Iterable[Record]) -> bytes:
        """The whole list."""
        return b"".join(self.pieces(records))

    def _forget(self, change: Change) -> None:
        for record in (change.before, change.after):
            if isinstance(record, self._kind):
                self._kept.pop(record.id, None)
