"""A configuration file of another program as tables whose every key knows its file and line.

Owns the words in which wrong types and unknown keys are refused. Knows no dialect.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.positions import KeyPath
from config.positions import key_lines as toml_lines
from config.positions_json import key_lines as json_lines
from config.problems import dotted
from config.values import describe
from oci.errors import BadInput

_NEAR = 0.82
"""How alike a key must be to a known one to be taken for a slip of the pen (difflib's ratio)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """A file as it was found: its text, or why it could not be read. The text may hold secrets."""

    path: str
    text: str = field(default="", repr=False)
    problem: str = ""

    def toml(self) -> Section:
        """Raises BadInput (unreadable, not TOML)."""
        self._require()
        try:
            document = tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError) as failure:
            line = re.search(r" \(at line (\d+), column \d+\)", str(failure))
            why = str(failure).replace(line[0], "") if line else str(failure)
            place = f"{self.path}:{line[1]}" if line else self.path
            raise BadInput(f"{place}: not TOML: {why[:1].lower()}{why[1:]}") from None
        return Section(document, file=self.path, lines=toml_lines(self.text))

    def json(self) -> Section:
        """Raises BadInput (unreadable, not a JSON object); nothing of the text is in it."""
        self._require()
        try:
            document = json.loads(self.text)
        except json.JSONDecodeError as failure:
            why = failure.msg.lower().removesuffix(" at")
            raise BadInput(f"{self.path}:{failure.lineno}: not JSON: {why}") from None
        except RecursionError:
            raise BadInput(f"{self.path}: not JSON: nested too deeply") from None
        if not isinstance(document, dict):
            raise BadInput(f"{self.path}: not a JSON object but {_kind(document)}")
        return Section(document, file=self.path, lines=json_lines(self.text))

    def _require(self) -> None:
        if self.problem:
            raise BadInput(f"{self.path}: {self.problem}")


class Section:
    """A table and where it stands. What it returns is checked; everything raised is BadInput.

    `secret` keeps values out of the messages.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        file: str,
        lines: Mapping[KeyPath, int],
        path: KeyPath = (),
        secret: bool = False,
    ) -> None:
        self.values = values
        self.file = file
        self._lines = lines
        self._path = path
        self._secret = secret

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def origin(self, *below: str | int) -> str:
        """ "file:line" of a key of this table, of the table itself without one."""
        path = (*self._path, *below)
        while path and path not in self._lines:
            path = path[:-1]
        return f"{self.file}:{self._lines[path]}" if path else f"{self.file}:1"

    def wrong(self, why: str, *below: str | int) -> BadInput:
        """The error for a key: file, line, its dotted name, and why."""
        name = dotted((*self._path, *below))
        return BadInput(f"{self.origin(*below)}: {name}: {why}" if name else f"{self.origin()}: {why}")

    def _mistyped(self, wanted: str, value: Any, *below: str | int) -> BadInput:
        found = _kind(value) if self._secret else describe(value)
        return self.wrong(f"must be {wanted}, not {found}", *below)

    def text(self, key: str, default: str = "") -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self._mistyped("text", value, key)
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self._mistyped("a boolean (true or false)", value, key)
        return value

    def texts(self, key: str, *, one: bool = False) -> tuple[str, ...]:
        """An array of texts; with `one` a single text will do."""
        value = self.values.get(key, [])
        if one and isinstance(value, str):
            return (value,)
        if not isinstance(value, list):
            raise self._mistyped("text or an array of texts" if one else "an array of texts", value, key)
        for number, item in enumerate(value):
            if not isinstance(item, str):
                raise self._mistyped("text", item, key, number)
        return tuple(value)

    def table(self, key: str, *, secret: bool = False) -> Section:
        """The table of that name; an empty one where there is none."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self._mistyped("a table", value, key)
        return self._below(value, key, secret=secret)

    def tables(self, key: str) -> tuple[Section, ...]:
        """An array of tables."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._mistyped("an array of tables", value, key)
        return tuple(self._below(item, key, number) for number, item in enumerate(value))

    def _below(self, values: Mapping[str, Any], *path: str | int, secret: bool = False) -> Section:
        return Section(
            values,
            file=self.file,
            lines=self._lines,
            path=(*self._path, *path),
            secret=secret or self._secret,
        )

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Every key must be known."""
        known = tuple(known)
        for key in self.values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known here are {', '.join(known)}"
                raise self.wrong(f"unknown key; {hint}", key)

    def refuse_misspelt(self, known: Iterable[str]) -> None:
        """Of a file that is mostly another program's: refuse only what is nearly a key that is read here."""
        folded = {_folded(key): key for key in known}
        for key in self.values:
            if key in folded.values():
                continue
            near = difflib.get_close_matches(_folded(key), folded, n=1, cutoff=_NEAR)
            if near:
                raise self.wrong(f"unknown key; did you mean {folded[near[0]]!r}?", key)


def _folded(key: str) -> str:
    return key.lower().replace("_", "-")


def _kind(value: Any) -> str:
    """What a value is, without the value."""
    words = {str: "text", bool: "a boolean", int: "an integer", float: "a float", list: "an array"}
    return "null" if value is None else words.get(type(value), "a table")
