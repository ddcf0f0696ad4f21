"""Each setting as it is in force, and where it came from: what `crisp config show` prints.

Owns the notation of values (TOML's). Knows no file: origins were noted when the files were read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.loading import LoadedSettings
from config.problems import dotted
from config.table import Table
from config.units import Bytes, Seconds, format_duration, format_size

UNSET = "unset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One key: `value` in TOML's notation (or "unset"), `origin` "default" or "FILE:LINE"."""

    key: str
    value: str
    origin: str


def explain(loaded: LoadedSettings) -> tuple[Row, ...]:
    """Every key that is in force, in the order of the reference; free names in the order of the files."""
    return tuple(_rows(loaded, loaded.settings, ()))


def plain(loaded: LoadedSettings) -> dict[str, Any]:
    """The same as nested objects for JSON; durations and sizes as in the files, unset keys as null."""
    plain_settings = _plain(loaded.settings)
    assert isinstance(plain_settings, dict)
    return plain_settings


def toml_value(value: Any) -> str:
    """A value as a file would hold it: `"64MiB"`, `["a", "b"]`, `true`."""
    if value is None:
        return UNSET
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, dict | Table):
        items = value.items() if isinstance(value, dict) else iter(value)
        inner = ", ".join(f"{dotted((key,))} = {toml_value(item)}" for key, item in items)
        return f"{{ {inner} }}" if inner else "{}"
    # a JSON scalar is a TOML scalar, but for DEL, which TOML wants escaped
    return json.dumps(_plain(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _rows(loaded: LoadedSettings, value: Any, path: tuple[str, ...]) -> Iterator[Row]:
    if isinstance(value, Table):
        for key, inner in value:
            yield from _rows(loaded, inner, (*path, key))
    elif isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _rows(loaded, inner, (*path, key))
    else:
        yield Row(key=dotted(path), value=toml_value(value), origin=loaded.describe_origin(*path))


def _plain(value: Any) -> Any:
    if isinstance(value, Table):
        return {key: _plain(inner) for key, inner in value}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Seconds):
        return format_duration(value)
    if isinstance(value, Bytes):
        return format_size(value)
    if isinstance(value, Path):
        return str(value)
    return value
