"""A scriptable registry and both forms of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles import registry
from tests.leaks import Scope


@pytest.fixture
def double() -> Iterator[registry.Registry]:
    with registry.serving() as serving:
        yield serving


@pytest.fixture(params=["erofs", "directory"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The state directory of the store under test."""
    return tmp_path / "state"


@pytest.fixture
def leak_scope() -> Scope:
    return Scope()
