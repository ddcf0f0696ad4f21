"""How values look to people: ages, sizes, times, tables; and JSON for programs.

Tables are plain columns with two blanks between them, so that they can be cut and searched. What comes from
containers and images may hold anything: control characters are shown, never sent to the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

_AGES = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Form(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the last one is not padded. Ends with a newline."""
    cells = [[visible(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
        for row in cells
    )


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Labels and values, one pair a line."""
    width = max((len(label) for label, _ in rows), default=0)
    return "".join(f"{label.ljust(width)}  {visible(value)}".rstrip() + "\n" for label, value in rows)


def visible(text: str) -> str:
    """`text` with everything that a terminal would obey written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    sys.stdout.write(table(head, rows))


def say_json(value: Any) -> None:
    """One document, indented for a person, on one line for a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, indent=indent, ensure_ascii=False))


def note(text: str) -> None:
    """Something beside the result, for the person: standard error."""
    print(f"crisp: {text}", file=sys.stderr)


def age(since: int, now: int) -> str:
    """The time between two moments in ns, in its two largest units at most: "3m12s", "5h", "-" for unset."""
    if since <= 0:
        return "-"
    seconds = max(0, (now - since) // 10**9)
    for index, (length, unit) in enumerate(_AGES):
        if seconds >= length:
            text = f"{seconds // length}{unit}"
            if index + 1 < len(_AGES) and seconds < 10 * length:
                smaller, name = _AGES[index + 1]
                if rest := seconds % length // smaller:
                    text += f"{rest}{name}"
            return text
    return "0s"


def size(count: float) -> str:
    """Bytes in the unit that leaves the number below 1024: "3.4 MiB"."""
    for unit in _SIZES[:-1]:
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_SIZES[-1]}"


def rfc3339(moment: int) -> str | None:
    """ns since the Unix epoch as UTC text with all nine digits; None for 0."""
    if moment <= 0:
        return None
    seconds, rest = divmod(moment, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def short(id_: str) -> str:
    """The first twelve digits of an id: enough for every command."""
    return id_.removeprefix("sha256:")[:12]
