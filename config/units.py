"""Durations and sizes as operators write them, and as the code uses them.

Owns the two notations and their error texts. A bare number is refused in both: whoever wrote `timeout = 30`
may have meant milliseconds, and nothing but a unit can tell.
"""

from __future__ import annotations

import math
import re

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE_UNITS_FOLDED = {unit.lower(): factor for unit, factor in _SIZE_UNITS.items()}
_PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([A-Za-z]*)")

DURATION_UNITS = "ms, s, m, h, d"
SIZE_UNITS = "B, KB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of 1024)"


class Seconds(float):
    """A duration in seconds, a value that was given with its unit."""

    __slots__ = ()


class Bytes(int):
    """A size in bytes, a value that was given with its unit."""

    __slots__ = ()


def parse_duration(text: str) -> Seconds:
    """ "2m", "500ms", "1h30m", "1.5s" -> seconds. Raises ValueError that names the accepted units."""
    wrong = (
        f"{text!r} is not a duration: write a number with a unit ({DURATION_UNITS}), such as '30s' or '1m30s'"
    )
    total = 0.0
    position = 0
    smallest = math.inf
    while position < len(text):
        part = _PART.match(text, position)
        if part is None or part[2] not in _DURATION_UNITS:
            raise ValueError(wrong)
        unit = _DURATION_UNITS[part[2]]
        if unit >= smallest:  # "30s1m" and "1m1m" are slips of the pen, not sums
            raise ValueError(wrong)
        smallest = unit
        total += float(part[1]) * unit
        position = part.end()
    if not text:
        raise ValueError(wrong)
    return Seconds(round(total, 6))


def parse_size(text: str) -> Bytes:
    """ "64MiB", "1.5 GB", "512B" -> bytes. Raises ValueError that names the accepted units."""
    wrong = f"{text!r} is not a size: write a number with a unit ({SIZE_UNITS}), such as '64MiB'"
    part = _PART.fullmatch(text.replace(" ", "", 1))
    if part is None or part[2].lower() not in _SIZE_UNITS_FOLDED:
        raise ValueError(wrong)
    whole, _, fraction = part[1].partition(".")
    factor = _SIZE_UNITS_FOLDED[part[2].lower()]
    return Bytes(int(whole) * factor + int(int(fraction or "0") * factor / 10 ** len(fraction)))


def format_duration(seconds: float) -> str:
    """The shortest exact notation: 90.0 -> "1m30s", 0.25 -> "250ms"."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    parts = []
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def format_size(size: int) -> str:
    """The largest unit that divides it: 67108864 -> "64MiB", 1500 -> "1500B"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = _SIZE_UNITS[unit]
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"
