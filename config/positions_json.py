"""Which line of a JSON text a key stands on.

json parses but keeps no positions. This scanner is given texts that json accepted, so it need not notice
mistakes; its answer has the shape of `config/positions.py`'s.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Mapping

from config.positions import KeyPath

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+')


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """The line (from 1) of every member and array element; of a member given twice, the last."""
    newlines = [match.start() for match in re.finditer("\n", text)]
    lines: dict[KeyPath, int] = {}
    path: list[str | int] = []  # where the value that comes next belongs
    member: list[bool] = []  # for each open container: whether a member's name, not a value, comes next
    for token in _TOKEN.finditer(text):
        word = token.group()
        line = bisect.bisect_left(newlines, token.start()) + 1
        if member and member[-1] and word[0] == '"':
            path[-1] = json.loads(word)
            lines[tuple(path)] = line
            member[-1] = False
        elif word == ",":
            if isinstance(last := path[-1], int):
                path[-1] = last + 1
            else:
                member[-1] = True
        elif word in "}]":
            path.pop()
            member.pop()
        elif word != ":":
            if path and isinstance(path[-1], int):
                lines[tuple(path)] = line
            if word in "{[":
                path.append("" if word == "{" else 0)
                member.append(word == "{")
    return lines
