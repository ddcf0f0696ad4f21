"""Representative requests give the configurations that were last reviewed.

After a deliberate change: `python -m tests.golden.requests`, and read the difference.
"""

from __future__ import annotations

import pytest

from tests.golden.requests import REQUESTS, SPECS, text


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_gives_the_reviewed_configuration(name: str) -> None:
    assert text(REQUESTS[name]()) == (SPECS / f"{name}.json").read_text()


def test_every_reviewed_configuration_has_its_request() -> None:
    assert {path.stem for path in SPECS.glob("*.json")} == set(REQUESTS)
