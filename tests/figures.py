"""What tests counted, for the end of a run: each section of figures is printed before pytest's summary."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

_LINES: dict[str, list[str]] = defaultdict(list)
_COUNTS: dict[str, Counter[str]] = defaultdict(Counter)


def line(section: str, text: str) -> None:
    """One line of its own."""
    _LINES[section].append(text)


def count(section: str, what: str, number: int) -> None:
    """Adds to what was counted so far; all of a section are printed with their sum."""
    _COUNTS[section][what] += number


def taken() -> dict[str, Any]:
    """Everything of this process, in types that can be sent to another."""
    return {"lines": dict(_LINES), "counts": {section: dict(each) for section, each in _COUNTS.items()}}


def add(others: dict[str, Any]) -> None:
    """What another process has `taken`."""
    for section, lines in others["lines"].items():
        _LINES[section] += lines
    for section, counts in others["counts"].items():
        _COUNTS[section].update(counts)


def write(reporter: pytest.TerminalReporter) -> None:
    for section in sorted({*_LINES, *_COUNTS}):
        reporter.section(section)
        for text in _LINES.get(section, ()):
            reporter.write_line(text)
        if counts := _COUNTS.get(section):
            each = ", ".join(f"{what} {number}" for what, number in counts.most_common())
            reporter.write_line(f"{counts.total()}: {each}")
