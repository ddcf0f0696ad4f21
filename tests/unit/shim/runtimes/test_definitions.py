"""What a pod's record keeps of its handler, and the drivers that come of it when the table has changed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from config.models import HandlerSettings
from oci.errors import Internal, Unsupported
from oci.features import HandlerFeatures, RuntimeVersion
from shim.runtimes.driver import Driver
from shim.runtimes.handlers import Handlers
from shim.runtimes.kinds import Candidate
from shim.runtimes.probe import candidate_of, definition_of
from shim.runtimes.table import Handler, HandlerTable, InvalidHandler

SETTINGS = HandlerSettings(
    binary=Path("/opt/one"), options=("--debug",), annotations=("a.*",), plugin={"depth": 3}
)
CANDIDATE = Candidate(name="mine", settings=SETTINGS, root=Path("/run/mine"), source="/c.toml:1")


def handler(name: str = "mine", version: str = "1.0", definition: str = "") -> Handler:
    return Handler(
        name=name,
        kind="oci",
        binary=Path(f"/opt/{name}"),
        version=RuntimeVersion(name="crun", version=version),
        features=HandlerFeatures(),
        source="/c.toml:1",
        definition=definition or f"{name} {version}",
    )


def test_a_definition_gives_the_handler_back() -> None:
    definition = definition_of(CANDIDATE, handler())
    assert candidate_of("mine", definition) == replace(CANDIDATE, source="started with it")
    assert definition != definition_of(CANDIDATE, handler(version="2.0"))


def test_what_a_later_release_knows_more_is_left_out_and_nonsense_is_refused() -> None:
    document = json.loads(definition_of(CANDIDATE, handler()))
    document["settings"]["of_the_future"] = 1
    assert candidate_of("mine", json.dumps(document)).settings == SETTINGS
    for text in ("", "5", "{}", '{"settings": 1, "root": "/"}', '{"settings": {"options": 4}, "root": "/"}'):
        with pytest.raises(Internal, match="what a pod's record keeps of it cannot be read"):
            candidate_of("mine", text)


class FakeDriver:
    def __init__(self, of: Handler) -> None:
        self.handler = of.name
        self.of = of
        self.closed = False

    async def close(self) -> None:
        self.closed = True


def handlers(*today: Handler, probed: dict[str, Handler | InvalidHandler] | None = None) -> Handlers:
    async def probe(_name: str, definition: str) -> Handler | InvalidHandler:
        return (probed or {})[definition]

    return Handlers(table(*today), make=lambda of: cast(Driver, FakeDriver(of)), probe=probe)


def table(*today: Handler, **broken: str) -> HandlerTable:
    return HandlerTable(
        handlers={one.name: one for one in today},
        invalid={
            name: InvalidHandler(name=name, reason=why, source="/c.toml:2") for name, why in broken.items()
        },
        default=today[0].name if today else "",
    )


def of(driver: Any) -> Handler:
    assert isinstance(driver, FakeDriver)
    return driver.of


def test_a_pod_keeps_its_driver_when_the_handler_changes_and_goes() -> None:
    async def story() -> None:
        one, two = handler(definition="one"), handler(definition="two")
        those = handlers(one)
        began = those.started("mine", "one")
        await those.take(table(two), [("mine", "one")])
        assert of(those.driver("mine")) == two
        assert those.started("mine", "one") is began
        assert those.former() == [one]
        await those.take(table(), [("mine", "one")])
        assert those.started("mine", "one") is began
        # Its pod is gone: kept once more, for one that may be about to begin, then closed.
        await those.take(table(), [])
        assert not cast(FakeDriver, began).closed
        await those.take(table(), [])
        assert cast(FakeDriver, began).closed
        assert those.former() == []

    asyncio.run(story())


def test_an_unchanged_handler_keeps_its_driver() -> None:
    async def story() -> None:
        those = handlers(handler())
        before = those.driver("mine")
        await those.take(table(handler()), [])
        assert those.driver("mine") is before

    asyncio.run(story())


def test_after_a_restart_records_get_their_drivers_back() -> None:
    async def story() -> None:
        today, old = handler(definition="today"), handler(definition="old")
        moved_on = handler(version="2.0", definition="today")
        those = handlers(today, probed={"old": old, "older version": moved_on})
        await those.revive([("mine", "old"), ("mine", "older version"), ("mine", ""), ("mine", "old")])
        assert of(those.started("mine", "old")) == old
        assert those.started("mine", "older version") is those.driver("mine")
        assert those.started("mine", "") is those.driver("mine")
        assert those.began_with("mine", "older version") == today

    asyncio.run(story())


def test_what_cannot_be_driven_any_more_says_why() -> None:
    async def story() -> None:
        gone = InvalidHandler(name="mine", reason="/opt/mine does not exist", source="s")
        those = handlers(handler("other"), probed={"old": gone})
        await those.revive([("mine", "old")])
        with pytest.raises(Unsupported, match=r"'mine', with which the pod was started.*was removed"):
            those.started("mine", "old")
        await those.take(table(mine="/opt/mine does not exist"), [])
        with pytest.raises(Unsupported, match="/opt/mine does not exist"):
            those.started("mine", "old")

    asyncio.run(story())


def test_a_kind_whose_driver_cannot_be_made_disables_only_its_handlers() -> None:
    def make(of: Handler) -> Driver:
        if of.name == "odd":
            raise RuntimeError("no")
        return cast(Driver, FakeDriver(of))

    async def probe(_name: str, _definition: str) -> Handler | InvalidHandler:
        raise AssertionError

    those = Handlers(table(handler(), handler("odd")), make=make, probe=probe)
    assert list(those.table.handlers) == ["mine"]
    assert those.table.invalid["odd"].reason == "its driver cannot be made: RuntimeError('no')"
