"""The end of a container becomes a record: seen at once where it is proven, waited for until it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oci.errors import Full
from shim.containers.exits import Exits
from shim.lifecycle.operations import Operations
from shim.paths import Paths
from shim.records import ContainerRecord, ContainerState
from shim.runtimes.driver import Exit
from shim.state.store import Change
from tests.unit.shim.containers import ID, RUNNING

ENDED = replace(RUNNING, state=ContainerState.EXITED, exit_code=3, reason="Error", finished_at=9)
KEPT = Exit(code=3, finished_at=9, kept=True)


class Store:
    """Writes wait for `disk`; `full` makes them fail then."""

    def __init__(self) -> None:
        self.containers = {ID: RUNNING}
        self.pods: dict[str, Any] = {}
        self.disk = asyncio.Event()
        self.full = False
        self.saved: list[ContainerRecord] = []
        self._listeners: list[Callable[[Change], None]] = []

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        self._listeners.append(listener)

    async def put(self, record: ContainerRecord, *, proven: bool = False) -> None:
        if proven and self.containers[ID] is not record:
            self._show(record, durable=False)
        await self.disk.wait()
        if self.full:
            raise Full("no space left")
        self.saved.append(record)
        if self.containers[ID] is not record:
            self._show(record, durable=True)

    def _show(self, record: ContainerRecord, *, durable: bool) -> None:
        change = Change(0, self.containers[ID], record, durable)
        self.containers[ID] = record
        for listener in self._listeners:
            listener(change)


class Driver:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.deleted_after: list[list[ContainerRecord]] = []

    async def delete(self, _target: object) -> None:
        self.deleted_after.append(list(self._store.saved))


class Scene:
    def __init__(self) -> None:
        self.store = Store()
        self.driver = Driver(self.store)
        node: Any = SimpleNamespace(
            store=self.store,
            operations=Operations(),
            driver_of=lambda _record: self.driver,
            paths=Paths(state_dir=Path("/state"), run_dir=Path("/run")),
        )
        self.exits = Exits(node)

    @property
    def state(self) -> ContainerState:
        return self.store.containers[ID].state


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def play(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        await story(Scene())

    asyncio.run(main())


@pytest.mark.parametrize("kept", [True, False])
def test_an_end_is_seen_before_it_is_saved_only_where_the_next_life_would_find_it(kept: bool) -> None:
    async def story(scene: Scene) -> None:
        scene.exits.listener(ID, replace(KEPT, kept=kept))
        await turns()
        assert scene.state is (ContainerState.EXITED if kept else ContainerState.RUNNING)
        scene.store.disk.set()
        await scene.exits.close()
        assert scene.store.saved[0] == ENDED
        assert scene.state is ContainerState.EXITED

    play(story)


def test_who_waits_for_an_end_is_told_when_it_is_saved_and_the_runtime_lets_go_after_that() -> None:
    async def story(scene: Scene) -> None:
        waiting = asyncio.ensure_future(scene.exits.ended(ID))
        scene.exits.listener(ID, KEPT)
        await turns()
        assert scene.state is ContainerState.EXITED
        assert not waiting.done()
        assert scene.driver.deleted_after == []
        scene.store.disk.set()
        await waiting
        await scene.exits.close()
        assert scene.driver.deleted_after == [[ENDED]]
        assert scene.store.containers[ID] == replace(ENDED, process=None)

    play(story)


def test_one_that_was_starting_when_the_daemon_went_is_told_as_started_when_it_was_made() -> None:
    async def story(scene: Scene) -> None:
        scene.store.containers[ID] = replace(RUNNING, state=ContainerState.STARTING, started_at=0)
        scene.store.disk.set()
        scene.exits.listener(ID, KEPT)
        await turns()
        await scene.exits.close()
        assert scene.store.saved[0] == replace(ENDED, started_at=RUNNING.created_at)

    play(story)


def test_an_end_that_cannot_be_saved_stays_seen_is_owed_and_saved_later() -> None:
    async def story(scene: Scene) -> None:
        scene.store.full = True
        scene.store.disk.set()
        scene.exits.listener(ID, KEPT)
        await scene.exits.close()
        assert scene.state is ContainerState.EXITED
        assert scene.exits.owed() == [ID]
        for refused in (scene.exits.ended, scene.exits.settle):
            with pytest.raises(Full):
                await refused(ID)
        assert scene.driver.deleted_after == []
        scene.store.full = False
        await scene.exits.settle(ID)
        await scene.exits.ended(ID)
        assert scene.exits.owed() == []
        assert scene.store.saved[0] == ENDED
        assert scene.driver.deleted_after == [[ENDED]]

    play(story)
