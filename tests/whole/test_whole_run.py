"""At the end of a whole run: which tests made each call, and that every test of the contract passed."""

from __future__ import annotations

import pytest

from api.proto import cri_pb2
from api.unbuilt import UNBUILT
from tests import calls
from tests.contract import rules

METHODS = [
    method.name for service in cri_pb2.DESCRIPTOR.services_by_name.values() for method in service.methods
]


@pytest.fixture(autouse=True)
def _only_after_everything(pytestconfig: pytest.Config) -> None:
    options = pytestconfig.option
    whole = pytestconfig.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not whole or options.keyword or options.markexpr or options.deselect:
        pytest.skip("only a part of the tests was asked for; this looks at a whole run (tests/run.sh)")


def test_every_call_was_made_over_a_socket_by_tests_of_this_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with capsys.disabled():
        print()
        for method in METHODS:
            tests = sorted(calls.MADE.get(method, ()))
            print(f"  {method}: {len(tests)} tests, such as {', '.join(tests[:2]) or 'none'}")
    assert len(METHODS) == 43
    # The walk over all fields makes every call; what counts is a test that wants something of it.
    walks = "test_field_walk.py"
    alone = [m for m in METHODS if all(walks in test for test in calls.MADE.get(m, ()))]
    assert alone == []
    assert set(UNBUILT) == {"RuntimeService/CheckpointPod", "RuntimeService/RestorePod"}


def test_every_test_of_the_contract_ran_and_passed() -> None:
    passed = {test.partition("[")[0].removeprefix("tests/") for test in calls.PASSED}
    tests = [
        f"{rule.number}: {file}::{name}"
        for rule in rules()
        for file, name in rule.tests
        if f"{file}::{name}" not in passed
    ]
    specs = [f"{rule.number}: {spec}" for rule in rules() for spec in rule.specs if spec not in calls.SPECS]
    assert (tests, specs) == ([], [])
