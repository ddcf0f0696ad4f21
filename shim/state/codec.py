"""Records to JSON and back, for any frozen dataclass, keeping what this release does not know.

A newer release may add members; this one must not drop them when it rewrites the record. So the store keeps
each record's JSON, and `merge` carries over the members that the classes here do not name. This module knows
nothing of SQLite or of which records exist.

Shapes: dataclass -> object, tuple -> array, Mapping -> object, Enum -> its value, bytes are not used.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Json = Any


class Undecodable(ValueError):
    """The JSON does not have the shape of the class; the message names the member."""


@cache
def _members(cls: type) -> dict[str, tuple[Any, dataclasses.Field[Any]]]:
    hints = get_type_hints(cls)
    return {f.name: (hints[f.name], f) for f in dataclasses.fields(cls)}


def encode(value: Any) -> Json:
    """JSON for a record. Members that hold their default are left out: records stay short."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out: dict[str, Json] = {}
        for f in dataclasses.fields(value):
            member = getattr(value, f.name)
            if f.default is not dataclasses.MISSING and member == f.default:
                continue
            if f.default_factory is not dataclasses.MISSING and not member:
                continue
            out[f.name] = encode(member)
        return out
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [encode(v) for v in value]
    return value


def decode(cls: type[T], data: Json) -> T:
    """The record that `encode` made; members that the class does not have are ignored.

    Raises Undecodable when a member is missing or has another type.
    """
    return typing.cast(T, _decode(cls, data, cls.__name__))


def merge(cls: type, old: Json, new: Json) -> Json:
    """`new` with the members of `old` that `cls` does not know, also in nested records."""
    if not (isinstance(old, dict) and isinstance(new, dict) and dataclasses.is_dataclass(cls)):
        return new
    members = _members(cls)
    merged = dict(new)
    for name, value in old.items():
        if name not in members:
            merged[name] = value
        elif name in new:
            inner = _record_class(members[name][0])
            if inner is not None:
                merged[name] = merge(inner, value, new[name])
    return merged


def _record_class(hint: Any) -> type | None:
    candidates = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for candidate in candidates:
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None


def _decode(hint: Any, data: Json, where: str) -> Any:
    origin = get_origin(hint)
    if isinstance(hint, typing.NewType):
        return _decode(hint.__supertype__, data, where)
    if origin in (Union, types.UnionType):
        options = get_args(hint)
        if data is None and type(None) in options:
            return None
        return _decode(next(o for o in options if o is not type(None)), data, where)
    if origin is tuple:
        return _decode_tuple(get_args(hint), data, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise Undecodable(f"{where}: expected an object")
        return {k: _decode(get_args(hint)[1], v, f"{where}.{k}") for k, v in data.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _decode_record(hint, data, where)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(data)
        except ValueError as error:
            raise Undecodable(f"{where}: {data!r} is not one of {[m.value for m in hint]}") from error
    if hint is Any:
        return data
    if hint is float and type(data) is int:
        return float(data)
    if type(data) is not hint:
        raise Undecodable(f"{where}: expected {hint.__name__}, found {type(data).__name__}")
    return data


def _decode_tuple(items: tuple[Any, ...], data: Json, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise Undecodable(f"{where}: expected an array")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_decode(items[0], v, f"{where}[{i}]") for i, v in enumerate(data))
    if len(items) != len(data):
        raise Undecodable(f"{where}: expected {len(items)} items, found {len(data)}")
    return tuple(_decode(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(items, data, strict=True)))


def _decode_record(cls: type, data: Json, where: str) -> Any:
    if not isinstance(data, dict):
        raise Undecodable(f"{where}: expected an object")
    values: dict[str, Any] = {}
    for name, (hint, f) in _members(cls).items():
        if name in data:
            values[name] = _decode(hint, data[name], f"{where}.{name}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise Undecodable(f"{where}.{name}: missing")
    return cls(**values)
