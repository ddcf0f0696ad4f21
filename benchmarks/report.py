"""Figures to a table: medians, ratios, what was aimed at. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measure. `values` are by side; the table shows their medians, or `shown` of them.

    `most` or `least` bound the ratio crispd / containerd, `limit` and `minimum` crispd's own figure.
    """

    name: str
    unit: str
    values: Mapping[str, Sequence[float]]
    most: float | None = None
    least: float | None = None
    limit: float | None = None
    minimum: float | None = None
    quantile: float = 0.5
    spread: bool = False  # show the least and the most too

    def figure(self, side: str) -> float | None:
        values = self.values.get(side)
        return quantile(values, self.quantile) if values else None

    @property
    def ratio(self) -> float | None:
        ours, theirs = self.figure("crispd"), self.figure("containerd")
        return ours / theirs if ours is not None and theirs else None

    @property
    def met(self) -> bool | None:
        """Whether what was aimed at is reached, None where nothing was."""
        ours = self.figure("crispd")
        if self.limit is not None:
            return None if ours is None else ours <= self.limit
        if self.minimum is not None:
            return None if ours is None else ours >= self.minimum
        if self.ratio is None:
            return None
        if self.most is not None:
            return self.ratio <= self.most
        return self.ratio >= self.least if self.least is not None else None

    def aim(self) -> str:
        if self.most is not None:
            return f"≤ {self.most:g}x"
        if self.least is not None:
            return f"≥ {self.least:g}x"
        if self.minimum is not None:
            return f"≥ {self.minimum:g} {self.unit}"
        return "" if self.limit is None else f"≤ {self.limit:g} {self.unit}"


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of them lie (the nearest rank); the median for 0.5."""
    if part == 0.5:
        return statistics.median(values)
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def table(rows: Sequence[Row], sides: Sequence[str] = ("crispd", "containerd", "floor")) -> str:
    """A table in Markdown."""
    head = ["measure", "unit", *sides, "crispd / containerd", "aim", "", "n"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        figures = [(side, row.figure(side)) for side in sides]
        counts = "/".join(str(len(values)) for values in row.values.values())
        lines.append(
            [
                row.name,
                row.unit,
                *("" if figure is None else _shown(row, side, figure) for side, figure in figures),
                "" if row.ratio is None else f"{row.ratio:.2f}x",
                row.aim(),
                {True: "met", False: "MISSED", None: ""}[row.met],
                counts,
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(row: Row, side: str, figure: float) -> str:
    values = row.values[side]
    if not row.spread or len(values) < 2:
        return _number(figure)
    return f"{_number(figure)} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
