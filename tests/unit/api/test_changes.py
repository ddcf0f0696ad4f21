from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from api.changes import BACKLOG, Watch
from api.translate import admin
from oci.errors import Busy, Full
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


def watch(feed: Feed, *, backlog: int = BACKLOG) -> Watch[int, str]:
    return Watch(feed, see=lambda change: [change.seq], show=str, backlog=backlog)


def test_a_watcher_gets_every_change_in_order_and_leaves_nothing() -> None:
    feed = Feed()

    async def read() -> list[str]:
        async with aclosing(watch(feed)) as changes:
            feed.announce(1)
            first = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            feed.announce(2, 3)
            return [await first, await anext(changes), await anext(changes)]

    assert asyncio.run(read()) == ["1", "2", "3"]
    assert feed.listeners == []


def test_a_watcher_that_falls_behind_is_told_so_and_holds_up_nobody() -> None:
    feed = Feed()

    async def read() -> list[str]:
        got = []
        async with aclosing(watch(feed, backlog=2)) as changes:
            feed.announce(1, 2)
            got.append(await anext(changes))
            feed.announce(3, 4)
            async for change in changes:
                got.append(change)
        return got

    with pytest.raises(Full, match=r"^events: this watcher was more than 2 changes behind"):
        asyncio.run(read())
    assert feed.listeners == []


def test_a_waiting_watcher_hears_that_the_daemon_stops_after_what_came_before() -> None:
    feed = Feed()

    async def read() -> list[str]:
        got: list[str] = []
        async with aclosing(watch(feed)) as changes:

            async def take() -> None:
                async for change in changes:
                    got.append(change)

            reading = asyncio.ensure_future(take())
            await asyncio.sleep(0)
            feed.announce(1)
            changes.end()
            with pytest.raises(Busy, match=r"^events: the daemon stops, reconnect$"):
                await reading
        return got

    assert asyncio.run(read()) == ["1"]
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
