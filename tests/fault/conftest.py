"""What the fault tests share: a rig of real parts, how fine the sweeps are, and what they tried."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks
from tests.daemon import Daemon, running
from tests.fault.rig import Rig, rigged
from tests.images.registry import Registry

OWN_DIRECTORIES: list[Path] = []
THINNER = {"shim-runc-v2": 3}
"""Each life of the daemon waits for shims and their log process to end."""


def _handler(request: pytest.FixtureRequest) -> str:
    """The test's parameter `handler`, runc without one."""
    params = getattr(request.node, "callspec", None)
    return params.params.get("handler", "runc") if params is not None else "runc"


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """Every how many points one is tried; 1 tries all. A thin sweep is thinner where a point takes longer."""
    asked = int(request.config.getoption("--sweep-stride"))
    return asked * THINNER.get(_handler(request), 1) if asked > 1 else asked


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """As everywhere, but only what bears the names of this process's own daemons counts.

    The sweeps are long; whoever works beside them on the machine is not their concern.
    """
    request.getfixturevalue("prepared_machine")
    before = leaks.take()
    yield
    names = (f"ct{os.getpid() % 100000}n", f"crisptest{os.getpid()}n", *map(str, OWN_DIRECTORIES))
    deadline = time.monotonic() + 5
    while True:
        left = [leak for leak in leaks.diff(before, leaks.take()) if any(name in leak for name in names)]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert left == [], "left behind"


@pytest.fixture
def daemon(prepared_machine: None, image_registry: Registry) -> Iterator[Daemon]:
    """A daemon of the test's own, judged by what bears its names."""
    with running(image_registry, shared=True) as own:
        OWN_DIRECTORIES.append(own.directory)
        yield own


@pytest.fixture
def rig(prepared_machine: None, image_registry: Registry, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The runtime is the test's parameter `handler`, runc without one."""
    with rigged(image_registry, handler=_handler(request)) as made:
        OWN_DIRECTORIES.append(made.own.directory)
        yield made
