"""The example of docs/handlers/ is installed as a package, and a pod runs on its kind of handlers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from api.proto import admin_pb2, admin_pb2_grpc
from tests.component.cri.client import Client
from tests.daemon import TREE, Daemon, running
from tests.images.registry import Registry

EXAMPLE = TREE / "docs" / "handlers" / "example-plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is installed: without an index, as on a node that has none."""
    source = tmp_path_factory.mktemp("source") / "example"
    shutil.copytree(EXAMPLE, source)  # building leaves files beside the sources
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", target, source],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target


def problems(daemon: Daemon) -> dict[str, str]:
    stub = admin_pb2_grpc.AdminStub(daemon.channel(daemon.admin_socket))
    return {one.name: one.problem for one in stub.Handlers(admin_pb2.HandlersRequest(), timeout=10).handlers}


def test_a_pod_runs_on_a_kind_that_a_package_added(
    prepared_machine: None, image_registry: Registry, site: Path, tmp_path: Path
) -> None:
    times = tmp_path / "times"
    overrides = {
        "handlers.timed": {"kind": "timed", "binary": shutil.which("runc") or "/usr/sbin/runc"},
        "handlers.timed.plugin": {"file": str(times)},
        "handlers.unset": {"kind": "timed", "binary": "/usr/sbin/runc"},
        "handlers.unknown": {"kind": "nobody"},
    }
    with running(image_registry, overrides=overrides, environment={"PYTHONPATH": str(site)}) as daemon:
        told = problems(daemon)
        assert told["timed"] == ""
        assert told["unset"] == "handlers.unset.plugin.file: no absolute path: None"
        assert told["unknown"] == "handlers.unknown.kind: 'nobody' is not known; known are oci, shim, timed"
        client = Client(daemon)
        client.pull()
        pod = client.run_pod(handler="timed", cgroup_parent=f"/{daemon.cgroup_prefix}")
        container = client.run(pod)
        assert client.exec(container, "echo", "hello") == "hello\n"
        daemon.kill()
        daemon.start()
        again = Client(daemon)
        assert again.exec(container, "echo", "again") == "again\n"
        again.stop(container)
        again.remove(container)
        verbs = [line.split()[0] for line in times.read_text().splitlines()]
        assert verbs[:4] == ["create", "start", "exec_sync", "exec_sync"]
        assert {"kill", "delete"} <= set(verbs[4:])
