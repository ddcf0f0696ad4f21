"""StopContainer where the stop signal does not arrive: the grace is given, then SIGKILL ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oci.errors import CrispError, Deadline, RuntimeFailed
from oci.workload import ContainerId
from shim.containers.stop import Stops, stop
from shim.lifecycle.operations import Operations
from shim.paths import Paths
from tests.unit.shim.containers import ID, RUNNING


@dataclass
class Driver:
    """Stands for the exits too. `refusal` is raised of every signal but SIGKILL to everything; without one
    they are not answered.
    """

    refusal: CrispError | None
    signals: list[tuple[int, bool]] = field(default_factory=list)
    dead: asyncio.Event = field(default_factory=asyncio.Event)

    async def kill(self, _target: object, number: int, *, everything: bool = False) -> None:
        self.signals.append((number, everything))
        if not everything:
            if self.refusal is None:
                await asyncio.Event().wait()
            else:
                raise self.refusal
        self.dead.set()

    async def settle(self, _id: ContainerId) -> None:
        return

    async def ended(self, _id: ContainerId) -> None:
        await self.dead.wait()


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (RuntimeFailed("handler kata: no such signal", verb="kill"), "a stop signal is not delivered"),
        (Deadline("handler kata: no answer within 2 s"), "a stop signal is not delivered"),
        (None, "a stop signal is not answered within the grace"),
    ],
)
def test_a_stop_signal_that_does_not_arrive_is_told_and_the_container_is_killed_after_its_grace(
    refusal: CrispError | None, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        driver = Driver(refusal)
        node: Any = SimpleNamespace(
            operations=Operations(),
            store=SimpleNamespace(containers={ID: RUNNING}),
            driver_of=lambda _record: driver,
            paths=Paths(state_dir=Path("/state"), run_dir=Path("/run")),
            settings=SimpleNamespace(containers=SimpleNamespace(kill_timeout=1.0)),
        )
        began = time.monotonic()
        exits: Any = driver
        await stop(node, exits, Stops(), ID, grace=0.1)
        assert 0.1 <= time.monotonic() - began < 5
        assert driver.signals == [(signal.SIGTERM, False), (signal.SIGKILL, True)]

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    (told,) = [record for record in caplog.records if record.name == "shim.containers.stop"]
    assert told.message == message
    assert refusal is None or told.__dict__["error"] == str(refusal)
