"""Registries as they are: each habit that is known pulls, or is refused with a reason that helps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.images.rig import content, failure, opened, run
from tests.doubles import registry
from tests.doubles.habits import HABITS, Habit
from tests.doubles.registry import Registry

PAGE = Path(__file__).parents[3] / "docs/registries.md"


@pytest.fixture
def storage() -> Iterator[Registry]:
    """At another address: what has another origin."""
    with registry.serving(host="127.0.0.2") as serving:
        yield serving


@pytest.mark.parametrize("habit", HABITS, ids=[f"{habit.registry}: {habit.does}" for habit in HABITS])
def test_a_registry_with_this_habit(habit: Habit, double: Registry, storage: Registry, home: Path) -> None:
    scene = habit.arrange(double, storage)

    async def story() -> None:
        async with opened(home) as store:
            name = double.reference(scene.image)
            if scene.kind is not None:
                found = await failure(store.pull(name, scene.who))
                assert isinstance(found, scene.kind)
                assert re.search(scene.why, str(found)), str(found)
                assert content(home) == []
            else:
                assert (await store.pull(name, scene.who)).id == scene.id
                fetched = len(double.asked("/blobs/"))
                assert (await store.pull(name, scene.who)).id == scene.id
                assert len(double.asked("/blobs/")) == fetched, "nothing is fetched a second time"
            scene.after()

    run(story)
    assert [request for request in storage.requests if "authorization" in request.headers] == []


def test_the_page_lists_every_habit() -> None:
    rows = [f"| {habit.registry} | {habit.does} | {habit.then} |" for habit in HABITS]
    found = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert [row for row in found if row in rows] == rows
