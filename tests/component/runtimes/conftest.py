"""A rig for each real runtime, and the directories that the leak check looks into."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.component.runtimes.rig import Rig, make_rootfs
from tests.component.runtimes.subjects import STATE, SUBJECTS, WHOLE, probed
from tests.leaks import Scope
from tests.machine import PATIENCE
from tests.parts.cargo import NoToolchain

RUNTIMES = ("runc", "crun")
SHIMS = ("shim-runc-v2", "shim-runc-1.6")

Story = Callable[[Rig], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("rootfs") / "rootfs")


@pytest.fixture(params=WHOLE)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def leak_scope(tmp_path: Path, doubles: Path) -> Scope:
    """Logs, bundles and the run directory are the test's own; nothing of a container may stay in them."""
    kept = (doubles / name / STATE for name in SUBJECTS)
    return Scope(directories=(tmp_path / "run", tmp_path / "root", *kept), expected=EXPECTED)


EXPECTED = (
    "path */run/ends", "path */run/attach", "path */run/execs", "path */run/logs",
    "path */run/logger", "path */run/logger/*", "path */run/shims", "path */run/shims/*", "path */run/fifos",
    "path */run/s", "path */root/crisp", "path */root/guest",
    f"path */{STATE}", f"path */{STATE}/root", f"path */{STATE}/root/*",
)  # fmt: skip


@pytest.fixture(scope="session")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of doubles are, one folder each."""
    return tmp_path_factory.mktemp("doubles")


@pytest.fixture
def play(runtime: str, tmp_path: Path, rootfs: Path, doubles: Path) -> Play:
    """Run a story with a rig, and take everything down after it, whatever happened."""

    def run(story: Story, *, real: str = runtime, **options: object) -> None:
        try:
            (doubles / real).mkdir(exist_ok=True)
            found = probed(real, doubles / real)
        except NoToolchain as error:
            pytest.skip(f"{real} is not here: {error}")

        async def whole() -> None:
            rig = Rig(found=found, base=tmp_path, rootfs=rootfs, **options)  # type: ignore[arg-type]
            try:
                async with asyncio.timeout(60 * PATIENCE):
                    await story(rig)
            finally:
                rig.binary, rig.monitor = None, Path("/usr/bin/conmon")
                await rig.close()

        asyncio.run(whole(), debug=True)

    return run
