"""Checks that every field of a request shares. A failure is BadInput that begins with the field's path.

Paths are written as the wire names the fields: `config.mounts[2].container_path`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from oci.errors import BadInput
from oci.workload import IdMapping

MAX_STRING = 128 * 1024 - 1
"""Bytes of one argument or environment string that execve(2) takes: MAX_ARG_STRLEN with its final NUL."""

MAX_NAME = 253
"""Bytes of a name: Kubernetes allows no longer one, and file names and labels hold it."""

ANNOTATION_LIMIT = 256 * 1024
"""Bytes of all keys and values of an object's annotations (TotalAnnotationSizeLimitB of Kubernetes)."""

KUBELET_ANNOTATIONS = 16 * 1024
"""What kubelet adds to a pod's own annotations: where its manifest came from, and when."""

MAX_ID = 2**32 - 2
"""The highest user or group id; the one above means "no change" to the kernel."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SPACE = re.compile(r"\s")

Domain = TypeVar("Domain")


def text(value: str, path: str, *, limit: int = MAX_STRING) -> str:
    """`value`, free of NUL and at most `limit` bytes in UTF-8."""
    if "\0" in value:
        raise BadInput(f"{path}: contains a NUL byte")
    if len(value) > limit // 4 and (size := len(value.encode())) > limit:
        raise BadInput(f"{path}: {size} bytes, more than the {limit} allowed")
    return value


def line(value: str, path: str, *, limit: int = 4096) -> str:
    """`value`, free of control characters: it is written into a file of lines, or shown."""
    text(value, path, limit=limit)
    if found := _CONTROL.search(value):
        raise BadInput(f"{path}: contains the control character {found.group()!r}")
    return value


def word(value: str, path: str) -> str:
    """`value`, a line without white space; it may be empty."""
    if _SPACE.search(line(value, path)):
        raise BadInput(f"{path}: contains white space: {value[:80]!r}")
    return value


def name(value: str, path: str) -> str:
    """A name of an object: not empty, and harmless where it is used again.

    Names become CNI_ARGS ("K=V;K=V", CNI specification), file names and NAMESPACE/POD/CONTAINER.
    """
    if not value:
        raise BadInput(f"{path}: empty")
    word(text(value, path, limit=MAX_NAME), path)
    for forbidden in ";=/":
        if forbidden in value:
            raise BadInput(f"{path}: {value!r} contains {forbidden!r}")
    if value in (".", ".."):
        raise BadInput(f"{path}: {value!r} is not a name")
    return value


def absolute(value: str, path: str) -> str:
    """An absolute path without `..`, so that its text says where it leads."""
    _no_dots(value, path)
    if not value.startswith("/"):
        raise BadInput(f"{path}: {value[:80]!r} is not an absolute path")
    return value


def relative(value: str, path: str) -> str:
    """A relative path that stays below where it starts."""
    _no_dots(value, path)
    if value.startswith("/"):
        raise BadInput(f"{path}: {value[:80]!r} is not a relative path")
    return value


def _no_dots(value: str, path: str) -> None:
    line(value, path)
    if not value:
        raise BadInput(f"{path}: empty")
    if ".." in value.split("/"):
        raise BadInput(f"{path}: {value[:80]!r} contains '..'")


def mapping(value: Mapping[str, str], path: str, *, limit: int = ANNOTATION_LIMIT) -> dict[str, str]:
    """Labels or annotations: keys not empty, no NUL, at most `limit` bytes in all."""
    result = dict(value)
    size = 0
    for key, content in result.items():
        if not key:
            raise BadInput(f"{path}: a key is empty")
        line(key, f"{path}: the key {key[:80]!r}")
        text(content, f"{path}[{key!r}]", limit=limit)
        size += len(key.encode()) + len(content.encode())
    if size > limit:
        raise BadInput(f"{path}: {size} bytes in all, more than the {limit} allowed")
    return result


def not_negative(value: int, path: str) -> int:
    if value < 0:
        raise BadInput(f"{path}: {value} is negative")
    return value


def identity(value: int, path: str) -> int:
    """A user or group id."""
    if not 0 <= value <= MAX_ID:
        raise BadInput(f"{path}: {value} is not a user or group id (0 to {MAX_ID})")
    return value


def choice(number: int, table: Mapping[Any, Domain], path: str) -> Domain:
    """The value for an enum's number; proto3 lets any number through."""
    if number not in table:
        raise BadInput(f"{path}: {number} is not one of {sorted(table)}")
    return table[number]


def id_mappings(mappings: Iterable[IdMapping], path: str) -> tuple[IdMapping, ...]:
    """Ranges that are not empty, fit into 32 bits and do not overlap on either side."""
    result = tuple(mappings)
    for index, entry in enumerate(result):
        if entry.length < 1:
            raise BadInput(f"{path}[{index}].length: {entry.length} maps nothing")
        for side, first in (("host_id", entry.host_id), ("container_id", entry.container_id)):
            if first < 0 or first + entry.length - 1 > MAX_ID:
                raise BadInput(
                    f"{path}[{index}].{side}: {first} and {entry.length} ids reach beyond {MAX_ID}"
                )
        for earlier in result[:index]:
            if _overlap(entry.host_id, earlier.host_id, entry.length, earlier.length) or _overlap(
                entry.container_id, earlier.container_id, entry.length, earlier.length
            ):
                raise BadInput(f"{path}[{index}]: overlaps an earlier mapping")
    return result


def _overlap(first: int, second: int, first_length: int, second_length: int) -> bool:
    return first < second + second_length and second < first + first_length
