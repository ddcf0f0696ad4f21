"""How many points the sweeps tried; the terminal summary prints it."""

from __future__ import annotations

LINES: list[str] = []


def note(line: str) -> None:
    LINES.append(line)
