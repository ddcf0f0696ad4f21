"""docs/contract.md names tests that there are; that they ran is for the end of a whole run to see."""

from __future__ import annotations

import ast
from functools import cache

from tests.contract import PAGE, rules

MOST_UNTESTED = 5  # lower it when one is won
TESTS = PAGE.parents[1] / "tests"


@cache
def functions(file: str) -> frozenset[str]:
    path = TESTS / file
    if not path.is_file():
        return frozenset()
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_every_test_that_the_contract_names_exists() -> None:
    missing = [
        f"{rule.number}: {file}::{name}"
        for rule in rules()
        for file, name in rule.tests
        if name not in functions(file)
    ]
    assert missing == []


def test_every_rule_has_its_own_number_and_few_have_no_test() -> None:
    found = rules()
    numbers = [rule.number for rule in found]
    assert len(set(numbers)) == len(numbers) > 300
    untested = [rule.number for rule in found if not rule.tests and not rule.specs]
    assert untested == [rule.number for rule in found if rule.untested]
    assert len(untested) <= MOST_UNTESTED
