"""A rig for each real runtime, and the directories that the leak check looks into."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.component.runtimes.rig import Rig, Shim, make_rootfs
from tests.images.catalogue import unpacked
from tests.leaks import Scope
from tests.machine import PATIENCE
from tests.parts import build
from tests.parts.table import PARTS

RUNTIMES = ("runc", "crun")
SHIMS = ("shim-runc-v2", "shim-runc-1.6")

Story = Callable[[Rig], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("rootfs") / "rootfs")


@pytest.fixture(params=RUNTIMES + SHIMS)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def leak_scope(tmp_path: Path) -> Scope:
    """Logs, bundles and the run directory are the test's own; nothing of a container may stay in them."""
    return Scope(directories=(tmp_path / "run", tmp_path / "root"), expected=EXPECTED)


EXPECTED = (
    "path */run/exits", "path */run/attach", "path */run/execs", "path */run/logs",
    "path */run/logger", "path */run/logger/*", "path */run/shims", "path */run/shims/*", "path */run/fifos",
    "path */run/s", "path */root/crisp",
)  # fmt: skip


def shim_of(name: str) -> Shim | None:
    """What the name of a handler of kind "shim" stands for; None for an OCI runtime."""
    if name == "shim-runc-v2":
        program = build.program("containerd", "containerd-shim-runc-v2")
        return Shim(program=program, version=PARTS["containerd"].version, runtime=Path("/usr/sbin/runc"))
    if name == "shim-runc-1.6":  # Debian 12's: another way of starting, and version 2 of the Task service
        program = unpacked("containerd") / "usr/bin/containerd-shim-runc-v2"
        return Shim(program=program, version="1.6.20~ds1", runtime=Path("/usr/sbin/runc"))
    return None


@pytest.fixture
def play(runtime: str, tmp_path: Path, rootfs: Path) -> Play:
    """Run a story with a rig, and take everything down after it, whatever happened."""

    def run(story: Story, *, real: str = runtime, **options: object) -> None:
        async def whole() -> None:
            rig = Rig(
                runtime=real,
                base=tmp_path,
                rootfs=rootfs,
                shim=shim_of(real),
                **options,  # type: ignore[arg-type]
            )
            try:
                async with asyncio.timeout(60 * PATIENCE):
                    await story(rig)
            finally:
                rig.binary, rig.monitor = None, Path("/usr/bin/conmon")
                await rig.close()

        asyncio.run(whole(), debug=True)

    return run
