"""Feeding a core whole, byte by byte and split anywhere: what it says must not depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` cut at these offsets."""
    edges = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def joined(events: Iterable[Any], *kinds: type) -> list[Any]:
    """Events with neighbours of these kinds, which hold parts of one stream, made one."""
    made: list[Any] = []
    for event in events:
        last = made[-1] if made else None
        if isinstance(event, kinds) and type(event) is type(last) and _place(event) == _place(last):
            whole = replace(event, data=last.data + event.data)
            made[-1] = whole
        else:
            made.append(event)
    return made


def _place(event: Any) -> Any:
    if getattr(event, "last", None) is not None:
        return None
    return getattr(event, "stream", getattr(event, "key", None))


def same_in_all_ways(
    data: bytes, fresh: Callable[[], Callable[[bytes], Sequence[Any]]], *kinds: type, cuts: Iterable[int] = ()
) -> list[Any]:
    """The events of `data`, after a check that whole, bytewise and cut feeding tell the same."""

    def fed(parts: Iterable[bytes]) -> list[Any]:
        receive = fresh()
        return joined([event for part in parts for event in receive(part)], *kinds)

    whole = fed([data])
    assert fed(data[i : i + 1] for i in range(len(data))) == whole
    assert fed(pieces(data, cuts)) == whole
    return whole
