"""Ids: 64 lower-case hex digits, and the prefixes by which people name them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from oci.errors import Absent, BadInput

_FULL = re.compile(r"[0-9a-f]{64}\Z")
_PREFIX = re.compile(r"[0-9a-f]{1,64}\Z")

S = TypeVar("S", bound=str)


def is_full(text: str) -> bool:
    """Whether `text` is a complete id."""
    return _FULL.match(text) is not None


def resolve(wanted: str, known: Iterable[S], *, what: str, field: str) -> S:
    """The one id of `known` that `wanted` equals or begins.

    Raises BadInput for an empty or ambiguous id, Absent when none matches; `what` names the kind in messages,
    `field` where the id stands in the request.
    """
    if not wanted:
        raise BadInput(f"{field}: empty")
    if not _PREFIX.match(wanted):
        raise Absent(f"{what} {wanted[:80]!r} does not exist (not a hexadecimal id)")
    matches = [candidate for candidate in known if candidate.startswith(wanted)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise Absent(f"{what} {wanted} does not exist")
    if wanted in matches:
        return next(m for m in matches if m == wanted)
    raise BadInput(f"{field}: {wanted} is ambiguous, it begins {len(matches)} ids")
