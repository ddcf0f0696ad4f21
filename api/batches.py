"""Cutting a list into messages: the rule that every `Stream*` list call of CRI shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

Item = TypeVar("Item", bound=Message | bytes)
Batch = TypeVar("Batch")

BATCH_BYTES = 1024 * 1024
"""Bytes of the items in one message. A client takes 16 MiB; small messages let it begin earlier."""

_FRAME = 6  # bytes around an item at most: the field's tag and a length of up to 32 bits


def batches(
    items: Iterable[Item], wrap: Callable[[list[Item]], Batch], *, limit: int = BATCH_BYTES
) -> Iterator[Batch]:
    """Every item once, in order, in messages of at least one item; no message for no items.

    An item that is bytes is serialized already, with its frame. One that alone is over `limit` makes a
    message of its own.
    """
    held: list[Item] = []
    size = 0
    for item in items:
        weight = len(item) if isinstance(item, bytes) else item.ByteSize() + _FRAME
        if held and size + weight > limit:
            yield wrap(held)
            held, size = [], 0
        held.append(item)
        size += weight
    if held:
        yield wrap(held)
