"""Who is asked for an image, with which credentials, and why: the whole explanation of each case."""

from __future__ import annotations

import pytest

from tests.golden.registries import CASES, Case, read

ALL = {f"{path.stem}: {case.title}": case for path in sorted(CASES.glob("*.txt")) for case in read(path)[1]}
PAIR = "YW5uOlNFQ1JFVA"  # ann:SECRET


def test_the_table_is_not_small_and_has_every_dialect() -> None:
    assert len(ALL) >= 100
    assert sorted(path.stem for path in CASES.glob("*.txt")) == [
        "containerd", "containers", "credentials", "docker", "together",
    ]  # fmt: skip


@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_the_explanation_is_the_one_that_was_reviewed(case: Case) -> None:
    assert case.run() == case.explained


@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_no_explanation_has_a_secret(case: Case) -> None:
    said = "\n".join(case.run())
    assert "SECRET" not in said
    assert PAIR not in said


def test_no_value_of_a_decision_shows_a_secret() -> None:
    """As a log or a traceback would show it."""
    for case in ALL.values():
        assert "SECRET" not in repr(case._files())
