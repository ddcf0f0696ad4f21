"""Collaborators that fail at the n-th awaited call, wherever in an operation that is.

`Faults` counts the awaited calls of everything that it wraps; a plan says which of them fail and whether they
did their work first. Knows nothing of what the collaborators are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from oci.errors import Internal


class Injected(Internal):
    """The failure that a sweep asked for."""


@dataclass(slots=True)
class Faults:
    """`fail_at` holds numbers of calls, the first is 1; `after` lets the call do its work before it fails."""

    fail_at: frozenset[int] = frozenset()
    after: bool = False
    armed: bool = False
    calls: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def arm(self, *numbers: int, after: bool = False) -> None:
        """Count from one again and fail at these calls."""
        self.fail_at, self.after, self.armed = frozenset(numbers), after, True
        self.calls.clear()
        self.failed.clear()

    def disarm(self) -> None:
        self.armed = False

    def wrap(self, name: str, collaborator: Any, *, inner: Mapping[str, Callable[[Any], Any]] = {}) -> Any:
        """A stand-in whose coroutine methods are counted; `inner` wraps what plain methods return."""
        return _Proxy(self, name, collaborator, dict(inner))

    def function(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """A coroutine function that is counted."""

        async def counted(*args: Any, **kwargs: Any) -> Any:
            if not self.armed:
                return await work(*args, **kwargs)
            self.calls.append(name)
            number = len(self.calls)
            if number not in self.fail_at:
                return await work(*args, **kwargs)
            self.failed.append(name)
            if self.after:
                made = await work(*args, **kwargs)
                if (discard := getattr(made, "discard", None)) is not None:
                    discard()  # whoever fails gives nothing away
            raise Injected(f"call {number}, {name}, was told to fail")

        return counted


class _Proxy:
    def __init__(
        self, faults: Faults, name: str, collaborator: Any, inner: dict[str, Callable[[Any], Any]]
    ) -> None:
        self._faults, self._name, self._real, self._inner = faults, name, collaborator, inner

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._real, attribute)
        if attribute in self._inner:
            wrap = self._inner[attribute]
            return lambda *args, **kwargs: wrap(value(*args, **kwargs))
        if inspect.iscoroutinefunction(value):
            return self._faults.function(f"{self._name}.{attribute}", value)
        return value
