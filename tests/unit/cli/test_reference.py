"""The page about the command is what the command says of itself."""

from __future__ import annotations

from pathlib import Path

import typer

from cli.main import app
from cli.reference import _EXAMPLES, _SHAPES, _commands, render

PAGE = Path(__file__).resolve().parents[3] / "docs/crisp.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `python -m cli.reference docs/crisp.md`"


def test_every_command_with_json_has_its_shape_on_the_page() -> None:
    commands = dict(_commands(typer.main.get_command(app), ""))
    with_json = {name for name, command in commands.items() if "output" in {p.name for p in command.params}}
    assert with_json == set(_SHAPES)
    assert set(_EXAMPLES) <= set(commands)
