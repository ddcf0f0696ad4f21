"""What the tests of the command share."""

from __future__ import annotations

import pytest

from tests.component.cli.person import IMAGE, said
from tests.daemon import Daemon


@pytest.fixture
def stocked(served: Daemon) -> Daemon:
    """The shared daemon with an image."""
    said(served, "pull", "-q", IMAGE)
    return served
