"""docs/contract.md as values: its rules, and the tests that each names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "contract.md"
_ROW = re.compile(r"\| ([0-9]+(?:\.[0-9]+)+) \| (.+) \| (.+) \|\Z")
_TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`\Z")
_SPEC = re.compile(r'critest "(.+)"\Z')


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of the page. `tests` are (file below tests/, function), `untested` why there is none."""

    number: str
    words: str
    tests: tuple[tuple[str, str], ...] = ()
    specs: tuple[str, ...] = ()
    untested: str = ""


def rules() -> list[Rule]:
    """All of them, in their order. Raises ValueError for a line that is no rule."""
    return [_rule(line) for line in PAGE.read_text().splitlines() if re.match(r"\| [0-9]", line)]


def _rule(line: str) -> Rule:
    row = _ROW.match(line)
    if row is None:
        raise ValueError(f"{PAGE}: {line}")
    number, words, cell = row.groups()
    if cell.startswith("none: "):
        return Rule(number=number, words=words, untested=cell.removeprefix("none: "))
    tests, specs = [], []
    for name in cell.split("<br>"):
        if test := _TEST.match(name):
            tests.append((test[1], test[2]))
        elif spec := _SPEC.match(name):
            specs.append(spec[1])
        else:
            raise ValueError(f"{PAGE}: rule {number}: {name} is neither a test nor a spec")
    return Rule(number=number, words=words, tests=tuple(tests), specs=tuple(specs))
