"""The linters are part of the suite: what they refuse is a failed test, with their own words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--no-fix", "--quiet", "."],
        ["ruff", "format", "--check", "--quiet", "."],
        ["mypy"],
        ["lint-imports", "--no-cache"],
    ],
    ids=["style", "format", "types", "imports"],
)
def test_the_tree_keeps_the_rules_of(command: list[str]) -> None:
    program = Path(sys.executable).with_name(command[0])
    run = subprocess.run(
        [program, *command[1:]], cwd=TREE, capture_output=True, text=True, check=False, timeout=280
    )
    assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout[-8000:]}{run.stderr[-2000:]}"
