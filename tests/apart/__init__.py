"""Workers that share nothing of the machine: what `tests/run.sh` runs all tests with.

pytest-xdist deals the tests out to workers, which tests/apart/python.sh starts in namespaces and cgroups of
their own. Here is what surrounds them: the machine prepared and locked for the whole run, the place of
their cgroups, and what they noted for the end of the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from benchmarks import place
from tests import calls, figures, machine


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def has_workers(config: pytest.Config) -> bool:
    """Whether this process deals tests out. Raises UsageError for workers that would share the machine."""
    if is_worker(config) or not getattr(config.option, "tx", None):
        return False
    if not all("tests/apart/python.sh" in worker for worker in config.option.tx):
        raise pytest.UsageError("workers need machines of their own: see the end of tests/run.sh")
    return True


@contextmanager
def surrounded() -> Iterator[None]:
    """What python.sh expects; afterwards nothing of it is there."""
    group = f"crisp-tests-{os.getpid()}"
    with ExitStack() as stack:
        stack.enter_context(machine.alone_on_the_machine("a whole run"))
        stack.enter_context(machine.prepared())
        stack.callback(place.remove_groups, group)
        place.make_group(group)
        os.environ["CRISP_TESTS_GROUP"] = group
        yield


def told() -> dict[str, Any]:
    """A worker's part of what is looked at when the run ends."""
    return {
        "made": {method: sorted(tests) for method, tests in calls.MADE.items()},
        "specs": sorted(calls.SPECS),
        "figures": figures.taken(),
    }


def listen(words: dict[str, Any]) -> None:
    """Add what a worker has `told`."""
    for method, tests in words["made"].items():
        calls.MADE[method].update(tests)
    calls.SPECS.update(words["specs"])
    figures.add(words["figures"])
