"""The diagrams in the documentation are those of the tables, and the files it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shim.lifecycle.diagram import with_diagrams

TOP = Path(__file__).parents[4]
PAGE = TOP / "docs/architecture.md"


def test_the_pages_diagrams_are_the_tables() -> None:
    text = PAGE.read_text()
    assert with_diagrams(text) == text, "run python -m shim.lifecycle.diagram docs/architecture.md"


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="pod table begins"):
        with_diagrams("# no marks here")


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:api|cli|shim|oci|config|docs)/[\w/.]*)`", PAGE.read_text()))
    assert len(named) > 25
    assert [name for name in sorted(named) if not (TOP / name).exists()] == []
