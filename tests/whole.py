"""What only a whole run can say, at its end: every call was made, every test of the contract passed.

Each check returns what is wrong, "" if nothing is; `reports` makes of them what pytest counts as tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from api.proto import cri_pb2
from api.unbuilt import UNBUILT
from tests import calls, figures
from tests.contract import rules

METHODS = [
    method.name for service in cri_pb2.DESCRIPTOR.services_by_name.values() for method in service.methods
]


def every_call_was_made_over_a_socket_by_tests_of_this_run() -> str:
    for method in METHODS:
        tests = sorted(calls.MADE.get(method, ()))
        figures.line(
            "calls", f"{method}: made by {len(tests)} tests, such as {', '.join(tests[:2]) or 'none'}"
        )
    # The walk over all fields makes every call; what counts is a test that wants something of it.
    walks = "test_field_walk.py"
    alone = [m for m in METHODS if all(walks in test for test in calls.MADE.get(m, ()))]
    problems = []
    if len(METHODS) != 43:
        problems.append(f"the interface has {len(METHODS)} calls, not 43")
    if alone:
        problems.append(f"made by no test: {', '.join(alone)}")
    if set(UNBUILT) != {"RuntimeService/CheckpointPod", "RuntimeService/RestorePod"}:
        problems.append(f"not built: {', '.join(UNBUILT)}")
    return "\n".join(problems)


def every_test_of_the_contract_ran_and_passed() -> str:
    passed = {test.partition("[")[0].removeprefix("tests/") for test in calls.PASSED}
    tests = [
        f"rule {rule.number}: {file}::{name} did not"
        for rule in rules()
        for file, name in rule.tests
        if f"{file}::{name}" not in passed
    ]
    specs = [
        f"rule {rule.number}: critest's {spec} did not"
        for rule in rules()
        for spec in rule.specs
        if spec not in calls.SPECS
    ]
    return "\n".join(tests + specs)


CHECKS: tuple[Callable[[], str], ...] = (
    every_call_was_made_over_a_socket_by_tests_of_this_run,
    every_test_of_the_contract_ran_and_passed,
)


def is_whole(config: pytest.Config) -> bool:
    """Whether everything was asked for: pytest without paths and without a selection."""
    option = config.option
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    selections = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "stepwise", "collectonly")
    return everything and not any(getattr(option, name, None) for name in selections)


def reports() -> Iterator[pytest.TestReport]:
    """The outcome of each check."""
    for check in CHECKS:
        wrong = check()
        yield pytest.TestReport(
            nodeid=f"tests/whole.py::{check.__name__}",
            location=("tests/whole.py", 0, check.__name__),
            keywords={},
            outcome="failed" if wrong else "passed",
            longrepr=wrong or None,
            when="call",
        )
