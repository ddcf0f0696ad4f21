"""The tokens in streaming URLs: each stands for one request, once, for one minute.

Whoever has a token is authorised, so it is 128 random bits and is never logged. No clock and no randomness of
its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from api.streaming.upgrade import Kind
from oci.errors import Full

T = TypeVar("T")

LIFE: Final = 60.0
"""Seconds in which a token must be used."""
LIMIT: Final = 1000
"""Tokens that may wait to be used."""


def new_token() -> str:
    """128 random bits in URL-safe characters."""
    return secrets.token_urlsafe(16)


class Tokens(Generic[T]):
    """Requests that wait for their connection. `now` is a monotonic clock in seconds."""

    def __init__(self, *, now: Callable[[], float], new: Callable[[], str] = new_token) -> None:
        self._now = now
        self._new = new
        self._waiting: dict[str, tuple[Kind, T, float]] = {}  # in the order in which they expire

    def issue(self, kind: Kind, request: T) -> str:
        """A token for this request. Raises Full when too many wait."""
        self._drop_expired()
        if len(self._waiting) >= LIMIT:
            raise Full(f"streaming: {LIMIT} URLs wait to be used; each is given up after {LIFE:g} s")
        token = self._new()
        self._waiting[token] = (kind, request, self._now() + LIFE)
        return token

    def known(self, kind: Kind, token: str) -> bool:
        """Whether `claim` would succeed."""
        self._drop_expired()
        found = self._waiting.get(token)
        return found is not None and found[0] is kind

    def claim(self, kind: Kind, token: str) -> T | None:
        """The request, which the token stands for no longer; None for one that is used, old or foreign."""
        if not self.known(kind, token):
            return None
        return self._waiting.pop(token)[1]

    def _drop_expired(self) -> None:
        now = self._now()
        while self._waiting:
            token = next(iter(self._waiting))
            if self._waiting[token][2] > now:
                break
            del self._waiting[token]

    def __len__(self) -> int:
        return len(self._waiting)
