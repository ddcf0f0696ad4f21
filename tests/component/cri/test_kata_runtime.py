"""kata-runtime 1.x, as a double that keeps its ways, driven by its command line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.proto import admin_pb2, admin_pb2_grpc
from tests.component.cri.client import Client
from tests.component.cri.test_sandboxes import ended
from tests.daemon import running
from tests.doubles import kata_runtime
from tests.images.registry import Registry


@pytest.fixture
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kata")
    kata_runtime.install(directory, shutil.which("crun") or "/usr/bin/crun")
    return directory


@pytest.fixture
def client(prepared_machine: None, image_registry: Registry, double: Path) -> Iterator[Client]:
    binary = str(double / "kata-runtime")
    tables: dict[str, dict[str, Any]] = {
        "handlers.kata": {"binary": binary},
        "handlers.kata-odd": {"binary": binary, "create_options": ["--no-new-keyring"]},
    }
    with running(image_registry, overrides=tables) as daemon:
        made = Client(daemon)
        made.pull()
        yield made
        if daemon.process is None:
            daemon.start()
        daemon.remove_all_pods()
        daemon.remove_pod_groups()


def test_a_virtual_machine_s_containers_live_and_end(client: Client, double: Path) -> None:
    pod = client.run_pod(handler="kata")
    made = [verb for verb in kata_runtime.calls(double) if verb in ("create", "start")]
    assert made == ["create", "start"]  # the pod's first container
    one, two = client.run(pod, "one"), client.run(pod, "two", ("sh", "-c", "echo out; exit 9"))
    assert client.exec(one, "echo", "inside") == "inside\n"
    assert ended(client, two) == (9, "Error")
    assert Path(client.pods[pod].log_directory, "two.log").read_text().endswith(" stdout F out\n")
    client.stop(one)
    assert client.status(one).status.exit_code == 137
    assert "kill" in kata_runtime.calls(double)


def test_a_virtual_machine_outlives_the_daemon_and_its_ends_are_told(client: Client) -> None:
    pod = client.run_pod(handler="kata")
    stays = client.run(pod, "stays")
    ends = client.run(pod, "ends", ("sh", "-c", "sleep 2; exit 7"))
    client.daemon.kill()
    client.daemon.start()
    again = Client(client.daemon)
    assert again.exec(stays, "echo", "here") == "here\n"
    assert ended(again, ends) == (7, "Error")


def test_what_the_table_says_of_it_is_shown_and_options_it_lacks_disable_it(client: Client) -> None:
    stub = admin_pb2_grpc.AdminStub(client.daemon.channel(client.daemon.admin_socket))
    found = {one.name: one for one in stub.Handlers(admin_pb2.HandlersRequest(), timeout=10).handlers}
    assert (found["kata"].problem, found["kata"].version) == ("", "1.13.0-alpha0")
    assert "runs each pod in a virtual machine" in found["kata"].notes
    assert not found["kata"].features["apparmor"]
    assert found["kata-odd"].problem == (
        "handlers.kata-odd.create_options: kata-runtime has no --no-new-keyring"
    )
    checks = stub.Doctor(admin_pb2.DoctorRequest(handler="kata"), timeout=60).checks
    assert [check.found for check in checks if check.verdict != admin_pb2.OK] == []
