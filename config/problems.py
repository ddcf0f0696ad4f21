"""What is wrong with a configuration, one line each, in words that name file, line, key and what would do.

Owns the translation of pydantic's errors. Knows no file: positions are looked up in what it is given.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.models import Settings
from config.positions import KeyPath
from config.table import BETWEEN_KEYS, Table
from config.values import describe

_DERIVED_DEFAULT = "default_factory_not_called"  # follows from another error, says nothing of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake. `line` is 0 where the file as a whole is meant, `key` "" where no key is; `handler` is
    the name of the handler in whose table it is, "" elsewhere."""

    file: Path
    line: int = 0
    key: str = ""
    message: str
    handler: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


def dotted(path: Sequence[str | int]) -> str:
    """A key as TOML writes it: network.bin_dirs[1], handlers."my handler".root."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else '"' + _escape(part) + '"'
            text += f".{shown}" if text else shown
    return text


def translate(error: ValidationError, *, between_keys: bool) -> list[tuple[KeyPath, str]]:
    """pydantic's errors as (key, message).

    With `between_keys` only those of rules over several keys, otherwise only the others.
    """
    found = []
    for item in error.errors(include_url=False):
        if item["type"] == _DERIVED_DEFAULT or (item["type"] == BETWEEN_KEYS) != between_keys:
            continue
        path = tuple(part for part in item["loc"] if part != "[key]")
        if between_keys:
            path = (*path, *item["ctx"]["key"].split("."))
        is_key = bool(item["loc"]) and item["loc"][-1] == "[key]"
        found.append((path, _message(path, item, is_key=is_key)))
    return found


def _message(path: KeyPath, item: Mapping[str, Any], *, is_key: bool) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        if is_key:
            return f"unknown key{_meant(str(path[-1]), allowed)}; known are {', '.join(allowed)}"
        near = _meant(value, allowed) if isinstance(value, str) else ""
        return f"must be one of {', '.join(map(repr, allowed))}, not {describe(value)}{near}"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}, not {describe(value)}"
    if kind in _BOUNDS:
        phrase, bound = _BOUNDS[kind]
        return f"must be {phrase} {context[bound]}, not {value}"
    return str(item["msg"][:1].lower() + item["msg"][1:])


_TYPES = {
    "bool_type": "a boolean (true or false)",
    "dict_type": "a table",
    "int_type": "an integer",
    "model_type": "a table",
    "string_type": "text",
    "tuple_type": "an array",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def _unknown_key(path: KeyPath) -> str:
    name = str(path[-1])
    table = _table_at(path[:-1])
    siblings = list(table.model_fields) if table is not None else []
    near = difflib.get_close_matches(name, siblings, n=1)
    if near:
        return f"unknown key; did you mean '{near[0]}'?"
    elsewhere = [key for key in known_keys() if key.rsplit(".", 1)[-1] == name]
    if not elsewhere:
        last_names = {key.rsplit(".", 1)[-1]: key for key in known_keys()}
        elsewhere = [last_names[key] for key in difflib.get_close_matches(name, last_names, n=1, cutoff=0.75)]
    if elsewhere:
        return f"unknown key; did you mean {' or '.join(repr(key) for key in elsewhere)}?"
    return f"unknown key; known here are {', '.join(siblings)}"


def _meant(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def known_keys() -> tuple[str, ...]:
    """Every key with its tables, in the order of the models; NAME stands for a name that is free."""
    return tuple(_keys_below(Settings, ""))


def _keys_below(table: type[Table], prefix: str) -> Iterable[str]:
    for name, field in table.model_fields.items():
        inner, named = table_of(field.annotation)
        key = f"{prefix}{name}"
        if inner is None:
            yield key
        else:
            yield from _keys_below(inner, f"{key}.NAME." if named else f"{key}.")


def table_of(annotation: Any) -> tuple[type[Table] | None, bool]:
    """The table that a field's type is made of, and whether it is a table of such tables by name."""
    if isinstance(annotation, type):
        return (annotation, False) if issubclass(annotation, Table) else (None, False)
    if typing.get_origin(annotation) is dict:
        value = typing.get_args(annotation)[1]
        if isinstance(value, type) and issubclass(value, Table):
            return value, True
    return None, False


def _table_at(path: KeyPath) -> type[Table] | None:
    table: type[Table] = Settings
    parts = list(path)
    while parts:
        field = table.model_fields.get(str(parts.pop(0)))
        inner, named = table_of(field.annotation) if field is not None else (None, False)
        if inner is None:
            return None
        table = inner
        if named and parts:
            parts.pop(0)
    return table


def _escape(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(char if char.isprintable() else f"\\U{ord(char):08X}" for char in quoted)
