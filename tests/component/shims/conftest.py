"""What the tests of shims share: a root file system, and what must not stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.component.runtimes.rig import make_rootfs


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("rootfs") / "rootfs")
