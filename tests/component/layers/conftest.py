"""Whatever a test mounts here, the kernel has nothing to say about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.layers import seen


@pytest.fixture(autouse=True)
def kernel_says_nothing() -> Iterator[None]:
    """Neither EROFS nor overlayfs writes a line but that of the mount."""
    log = seen.KernelLog()
    yield
    complaints = log.complaints()
    log.close()
    assert complaints == []
