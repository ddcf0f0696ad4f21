"""Writes the state tables into a page: `python -m shim.lifecycle.diagram docs/architecture.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from shim.lifecycle.table import CONTAINER, POD, mermaid


def with_diagrams(text: str) -> str:
    """The page with both diagrams as the tables are now. Raises ValueError when a mark is missing."""
    for name, diagram in (("pod", mermaid(POD)), ("container", mermaid(CONTAINER))):
        begin, end = f"<!-- {name} table begins -->", f"<!-- {name} table ends -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"the marks {begin!r} and {end!r} are not there")
        text = f"{before}{begin}\n```mermaid\n{diagram}\n```\n{end}{after}"
    return text


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_diagrams(page.read_text()))
