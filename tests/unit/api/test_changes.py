from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from api.changes import follow
from api.translate import admin
from oci.errors import Full
from shim.records import LayerRecord
from shim.state.store import Change
from tests.unit.api import records


class Feed:
    def __init__(self) -> None:
        self.listeners: list[Callable[[Change], None]] = []

    def subscribe(self, listener: Callable[[Change], None], /) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def announce(self, *numbers: int) -> None:
        for number in numbers:
            for listener in self.listeners:
                listener(Change(number, None, records.pod()))


def test_a_watcher_gets_every_change_in_order_and_leaves_nothing() -> None:
    feed = Feed()

    async def watch() -> list[int]:
        async with aclosing(follow(feed)) as changes:
            first = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            feed.announce(1, 2, 3)
            return [(await first).seq, (await anext(changes)).seq, (await anext(changes)).seq]

    assert asyncio.run(watch()) == [1, 2, 3]
    assert feed.listeners == []


def test_a_watcher_that_falls_behind_is_told_so_and_holds_up_nobody() -> None:
    feed = Feed()

    async def watch() -> None:
        changes = follow(feed, backlog=2)
        first = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        feed.announce(1, 2, 3, 4)
        await first
        async for _ in changes:
            pass

    with pytest.raises(Full, match=r"^events: this watcher was more than 2 changes behind"):
        asyncio.run(watch())
    assert feed.listeners == []


def test_a_change_becomes_an_event_with_the_state_entered() -> None:
    pod, container, image = records.pod(), records.container(), records.image()
    layer = LayerRecord(diff_id="sha256:1", form="erofs", size=1, inodes=1, created_at=1)

    def told(change: Change) -> tuple[str, str, str, str] | None:
        event = admin.event(change, time=5)
        return (event.kind, event.realm, event.id, event.state) if event else None

    assert [
        told(Change(1, None, pod)),
        told(Change(2, container, container)),
        told(Change(3, container, None)),
        told(Change(4, None, image)),
        told(Change(5, image, None)),
        told(Change(6, None, layer)),
    ] == [
        ("pod", "kubelet", pod.id, "ready"),
        ("container", "kubelet", container.id, "running"),
        ("container", "kubelet", container.id, "removed"),
        ("image", "", image.id, "present"),
        ("image", "", image.id, "removed"),
        None,
    ]
