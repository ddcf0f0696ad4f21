"""Which test made which call over a daemon's socket, and which tests passed: what the end of a run sees"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import grpc

MADE: dict[str, set[str]] = defaultdict(set)
"""Method ("RunPodSandbox") -> the tests, by node id, that called it."""

PASSED: set[str] = set()
"""Node ids of tests that ran and passed."""

SPECS: set[str] = set()
"""Specs of critest that passed with some runtime, by their full names."""


def current_test() -> str:
    """The node id of the test that runs, "" between tests; pytest keeps it in the environment."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]


class Recorder(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[misc]
    """Notes each call before it is made."""

    def _note(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        if test := current_test():
            MADE[details.method.rpartition("/")[2]].add(test)
        return continuation(details, request)

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return self._note(continuation, details, request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return self._note(continuation, details, request)
