"""Everything that the fuzzer found worth keeping is fed to the cores again; see `tests/streams/fuzz.py`."""

from __future__ import annotations

import pytest

from tests.streams.fuzz import inputs
from tests.streams.targets import TARGETS


@pytest.mark.parametrize("target", list(TARGETS))
def test_the_corpus_is_taken(target: str) -> None:
    taken = 0
    for data in inputs(target):
        TARGETS[target](data)
        taken += 1
    assert taken > 0
