"""The Debian package on a node: installed, upgraded and taken back over a pod that runs, removed, purged.

Runs in the virtual machine alone: `tests/node/run.sh --packages tests/node/test_package.py`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.proto import cri_pb2
from tests import leaks, machine
from tests.images.registry import Registry
from tests.node.operating import configure, process, pull, run, runtime, start, works
from tests.parts.build import cache

PACKAGES = sorted((cache() / "packages").glob("crisp_*.deb"))
pytestmark = pytest.mark.skipif(
    "NODE_BOOT" not in os.environ or len(PACKAGES) != 2,
    reason="only in the virtual machine: tests/node/run.sh --packages tests/node/test_package.py",
)
COUNTS = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.2; done"
LIMIT = 60.0 * machine.PATIENCE  # seconds that a state is waited for


@pytest.fixture
def leak_scope() -> leaks.Scope:
    """The package is installed by the first test and purged by the last, which looks by itself."""
    return leaks.Scope(expected=("*",))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def container(prepared_machine: None, image_registry: Registry, logs: Path) -> Iterator[tuple[str, str]]:
    """A pod and its container, which counts into its log, under the older package."""
    run("dpkg", "--install", PACKAGES[0], limit=1500)
    Path("/etc/crisp").mkdir(exist_ok=True)
    configure(image_registry)
    run("systemctl", "restart", "crispd")
    pull()
    yield start("counts", "sh", "-c", COUNTS, log_directory=str(logs))


def seen(ids: tuple[str, str]) -> tuple[int, str, int]:
    """What must not change: pid, address, creation time."""
    pod, made = ids
    told: Any = runtime().PodSandboxStatus(cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod), timeout=120)
    assert told.status.state == cri_pb2.SANDBOX_READY
    found: Any = runtime().ContainerStatus(cri_pb2.ContainerStatusRequest(container_id=made), timeout=120)
    assert found.status.state == cri_pb2.CONTAINER_RUNNING
    return process(made), told.status.network.ip, found.status.created_at


def installed() -> str:
    return run("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", "crisp")


def version(package: Path) -> str:
    return package.name.split("_")[1]


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def no_gap(logs: Path) -> bool:
    """Every number is in the log once and in order."""
    numbers = [int(found) for found in re.findall(r" F line (\d+)\n", (logs / "main.log").read_text())]
    return numbers == list(range(1, len(numbers) + 1)) and bool(numbers)


@pytest.mark.parametrize("package", [1, 0], ids=["upgrade", "back"])
def test_another_version_takes_over_a_pod_that_does_not_notice(
    package: int, container: tuple[str, str], logs: Path
) -> None:
    before, size = seen(container), (logs / "main.log").stat().st_size
    run("dpkg", "--install", PACKAGES[package], limit=1500)
    assert installed() == f"installed {version(PACKAGES[package])}"
    until(lambda: run("systemctl", "show", "-P", "SubState", "crispd").strip() == "running", "it runs")
    assert seen(container) == before
    assert works(container[1])
    assert no_gap(logs)
    assert (logs / "main.log").stat().st_size > size


def test_removed_it_asks_nothing_and_pods_and_state_stay(container: tuple[str, str], logs: Path) -> None:
    before = seen(container)
    run("dpkg", "--remove", "crisp", limit=600)
    assert installed().startswith("config-files")
    assert Path(f"/proc/{before[0]}").exists()
    assert Path("/var/lib/crisp").is_dir()
    assert not Path("/usr/bin/crispd").exists()
    size = (logs / "main.log").stat().st_size
    until(lambda: (logs / "main.log").stat().st_size > size, "the container goes on to write")
    run("dpkg", "--install", PACKAGES[1], limit=1500)
    assert seen(container) == before
    assert no_gap(logs)


def test_purged_it_leaves_nothing(container: tuple[str, str]) -> None:
    pid, *_ = seen(container)
    run("dpkg", "--purge", "crisp", limit=600)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the container is gone")
    kept = [
        path for path in ("/opt/crisp", "/var/lib/crisp", "/run/crisp", "/etc/crisp") if Path(path).exists()
    ]
    units = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "crisp*")
    groups = [group for group in leaks.cgroups() if "crisp" in group]
    links = [name for name in leaks.links() if name.startswith(("crisp", "veth"))]
    namespaces = [name for name in leaks.network_namespaces() if name.startswith("crisp")]
    mounts = [mount for mount in leaks.mounts() if "/crisp/" in mount]
    monitors = [line for line in leaks.processes() if ": conmon:" in line]
    left = (kept, units, groups, links, namespaces, mounts, monitors)
    assert left == ([], "", [], [], [], [], [])
