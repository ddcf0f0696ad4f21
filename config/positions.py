"""Which line of a TOML text a key stands on.

tomllib parses but keeps no positions; this scanner keeps only positions and leaves values and refusals to
tomllib (docs/decisions/configuration-positions.md). It is given texts that tomllib accepted (TOML 1.0), so it
need not notice mistakes.
"""

from __future__ import annotations

import bisect
import re
import tomllib
from collections.abc import Mapping

KeyPath = tuple[str | int, ...]
"""Keys from the top of the document; an integer is an index into an array."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_ONE_LINE_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')
_MULTI_LINE_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}|\'\'\'(?:[^\']|\'(?!\'\'))*\'{3,5}', re.DOTALL
)
_BARE_VALUE = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """The line (from 1) of every key, table and array element; of a table, its first mention."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._last_index: dict[KeyPath, int] = {}  # arrays of tables: the index of the table last begun
        self.lines: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_BLANK_LINES)
            if self._at >= len(self._text):
                return
            if self._text.startswith("[[", self._at):
                table = self._array_table_header()
            elif self._text[self._at] == "[":
                table = self._table_header()
            else:
                self._key_value(table)

    def _table_header(self) -> KeyPath:
        line = self._line()
        self._at += 1
        path: KeyPath = ()
        for part in self._key():
            path = self._note(self._enter(path), part, line)
        self._at += 1
        return self._enter(path)

    def _array_table_header(self) -> KeyPath:
        line = self._line()
        self._at += 2
        path: KeyPath = ()
        for part in self._key():
            path = self._note(self._enter(path), part, line)
        self._at += 2
        index = self._last_index.get(path, -1) + 1
        self._last_index[path] = index
        return self._note(path, index, line)

    def _key_value(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for part in self._key():
            path = self._note(path, part, line)
        self._at += 1  # the '='
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        first = self._text[self._at]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        elif self._text.startswith(('"""', "'''"), self._at):
            self._skip(_MULTI_LINE_STRING)
        elif first in "\"'":
            self._skip(_ONE_LINE_STRING)
        else:
            self._skip(_BARE_VALUE)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while not self._closes("]"):
            self._value(self._note(path, index, self._line()))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while not self._closes("}"):
            self._key_value(path)

    def _closes(self, bracket: str) -> bool:
        """Pass blanks and commas; true, and past it, when the bracket follows."""
        self._skip(_BLANK_LINES)
        while self._text[self._at] == ",":
            self._at += 1
            self._skip(_BLANK_LINES)
        if self._text[self._at] != bracket:
            return False
        self._at += 1
        return True

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_BLANK)
            bare = _BARE_KEY.match(self._text, self._at)
            if bare is not None:
                parts.append(bare[0])
                self._at = bare.end()
            else:
                start = self._at
                self._skip(_ONE_LINE_STRING)
                parts.append(tomllib.loads(f"key = {self._text[start : self._at]}")["key"])
            self._skip(_BLANK)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _enter(self, path: KeyPath) -> KeyPath:
        """Below an array of tables, headers speak of the table that was begun last."""
        return (*path, self._last_index[path]) if path in self._last_index else path

    def _note(self, path: KeyPath, part: str | int, line: int) -> KeyPath:
        longer = (*path, part)
        self.lines.setdefault(longer, line)
        return longer

    def _line(self) -> int:
        return bisect.bisect_left(self._newlines, self._at) + 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"line {self._line()}: this scanner and tomllib disagree")
        self._at = match.end()
