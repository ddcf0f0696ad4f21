"""How values look."""

from __future__ import annotations

import pytest

from cli import form

SECOND = 10**9


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (192, "3m12s"),
        (605, "10m"),
        (3600, "1h"),
        (3720, "1h2m"),
        (86400 * 2 + 3600 * 5, "2d5h"),
        (86400 * 30, "30d"),
        (86400 * 400, "1y35d"),
        (-5, "0s"),
    ],
)
def test_ages_have_their_two_largest_units_at_most(seconds: int, expected: str) -> None:
    now = 10**18 * 2
    assert form.age(now - seconds * SECOND, now) == expected


def test_an_unset_time_has_no_age_and_no_text() -> None:
    assert (form.age(0, 5), form.rfc3339(0)) == ("-", None)


def test_times_are_utc_with_all_their_digits() -> None:
    assert form.rfc3339(1769860800_123456789) == "2026-01-31T12:00:00.123456789Z"
    assert form.rfc3339(1769860800_000000001) == "2026-01-31T12:00:00.000000001Z"


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (3 * 2**20, "3.0 MiB"), (2**60, "1024.0 PiB")],
)
def test_sizes_have_the_unit_that_keeps_them_short(count: int, expected: str) -> None:
    assert form.size(count) == expected


def test_columns_are_as_wide_as_they_must_be_and_lines_end_with_text() -> None:
    assert form.table(("A", "LONG"), [("wide cell", ""), ("x", "y")]) == (
        "A          LONG\nwide cell\nx          y\n"
    )


def test_a_table_without_rows_is_its_head() -> None:
    assert form.table(("A", "B"), []) == "A  B\n"


def test_labels_and_values_are_aligned() -> None:
    assert form.pairs([("a", "1"), ("long", "2"), ("b", "")]) == "a     1\nlong  2\nb\n"


def test_a_terminal_is_told_nothing_by_what_is_shown() -> None:
    assert form.table(("A",), [("\x1b[2Jred\n\u202ex é",)]) == "A\n\\x1b[2Jred\\n\\u202ex é\n"


def test_ids_are_shortened_without_their_algorithm() -> None:
    assert form.short("sha256:" + "ab" * 32) == "abababababab"
