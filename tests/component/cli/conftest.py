"""What the tests of the command share."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.component.cli.person import IMAGE, said
from tests.daemon import Daemon


@pytest.fixture
def stocked(served: Daemon) -> Iterator[Daemon]:
    """The shared daemon with an image. What a test still runs is removed with its logs, as people do it."""
    said(served, "pull", "-q", IMAGE)
    yield served
    if left := json.loads(said(served, "pods", "-a", "--realm", "run", "-o", "json")):
        said(served, "rm", "-f", *(pod["id"] for pod in left))
