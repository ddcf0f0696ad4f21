"""Every call of the interface that is served is made over a socket by some test, and that test is known."""

from __future__ import annotations

import re
from pathlib import Path

from api.proto import cri_pb2
from api.unbuilt import UNBUILT

TESTS = Path(__file__).resolve().parents[1]
ROOMS = ("component", "conformance", "fault")
CALLS = {
    f"{service.name}/{method.name}": method.name
    for service in cri_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def exercised() -> dict[str, list[str]]:
    """Call -> the files whose tests, or whose clients for tests, make it on a daemon's socket."""
    texts = {
        str(path.relative_to(TESTS)): path.read_text()
        for top in (*(TESTS / room for room in ROOMS), TESTS)
        for path in (top.rglob("*.py") if top is not TESTS else top.glob("*.py"))
    }
    return {
        call: sorted(
            name
            for name, text in texts.items()
            if re.search(rf"""(?<!cri_pb2)\.{method}\(|["']{method}["']""", text)
        )
        for call, method in CALLS.items()
    }


def test_each_served_call_has_tests_that_make_it() -> None:
    made = exercised()
    assert [call for call, files in made.items() if not files and call not in UNBUILT] == []


def test_all_calls_of_the_interface_are_counted() -> None:
    assert len(CALLS) == 43
    assert set(UNBUILT) <= set(CALLS)
