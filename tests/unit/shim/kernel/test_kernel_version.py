"""Kernel releases as versions."""

from __future__ import annotations

import pytest

from shim.kernel.probe import parse_version


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-18-amd64", (6, 1)), ("5.15.0", (5, 15)), ("6.18.44-fc", (6, 18)), ("7.0-rc1", (7, 0))],
)
def test_the_first_two_numbers_of_a_release_count(release: str, version: tuple[int, int]) -> None:
    assert parse_version(release) == version


def test_a_release_without_numbers_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a kernel release"):
        parse_version("mainline")
