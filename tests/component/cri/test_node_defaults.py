"""What the node's settings give to every container, as the kernel tells of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client, cgroup_file
from tests.daemon import Daemon, running, warm_up
from tests.images.registry import Registry


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the node's hook writes what it saw."""
    return tmp_path_factory.mktemp("node") / "told"


@pytest.fixture(scope="module")
def node(prepared_machine: None, image_registry: Registry, told: Path) -> Iterator[Daemon]:
    place = told.parent
    (place / "license").write_text("for all\n")
    (place / "zone").mkdir()
    hook = place / "hook"
    hook.write_text(f"#!/bin/sh\necho run >> {told}\n")
    hook.chmod(0o755)
    (place / "hooks").mkdir()
    (place / "hooks/a.json").write_text(
        json.dumps(
            {
                "version": "1.0.0",
                "hook": {"path": str(hook)},
                "when": {"annotations": {"^hooked$": "^yes$"}},
                "stages": ["createRuntime"],
            }
        )
    )
    (place / "base.json").write_text(
        json.dumps(
            {
                "process": {"env": ["BASE=1"], "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]},
                "mounts": [{"destination": "/base", "type": "tmpfs", "source": "tmpfs"}],
            }
        )
    )
    overrides: dict[str, dict[str, Any]] = {
        "containers": {
            "default_sysctls": ["net.ipv4.ip_unprivileged_port_start=7", "kernel.shm_rmid_forced = 1"],
            "default_pids_limit": 77,
            "masked_paths": ["/proc/version"],
            "readonly_paths": ["/proc/sysvipc"],
            "default_mounts": [f"{place}/license:/etc/license:ro"],
            "timezone": "local",
            "umask": "0027",
            "min_memory": "8MiB",
            "device_ownership_from_user": True,
            "inheritable_capabilities": True,
            "hooks_dirs": [str(place / "hooks")],
        },
        "handlers.runc": {"base_spec": str(place / "base.json")},
    }
    if not Path("/etc/localtime").exists():
        overrides["containers"]["timezone"] = ""
    with running(image_registry, overrides=overrides, shared=True) as daemon:
        warm_up(daemon)
        Client(daemon).pull()
        yield daemon


@pytest.fixture
def client(node: Daemon) -> Iterator[Client]:
    made = Client(node)
    made.pull()
    yield made
    node.remove_all_pods()
    node.remove_pod_groups()


def refusal(client: Client, pod: str, **wanted: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        client.create(pod, "refused", **wanted)
    error: Any = caught.value
    return error.code().name, error.details()


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_every_default_reaches_the_kernel(client: Client, told: Path, handler: str) -> None:
    told.unlink(missing_ok=True)
    pod = client.run_pod(handler=handler, sysctls={"kernel.shm_rmid_forced": "0"})
    device = cri_pb2.Device(host_path="/dev/zero", container_path="/dev/own", permissions="rw")
    container = client.run_up(
        pod,
        security={"run_as_user": cri_pb2.Int64Value(value=1000)},
        annotations={"hooked": "yes"},
        members={"devices": [device]},
    )
    pid = client.pid(container)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    root = Path(f"/proc/{pid}/root")

    assert client.exec(container, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start") == "7\n"
    assert client.exec(container, "cat", "/proc/sys/kernel/shm_rmid_forced") == "0\n"  # the pod's own wins
    assert cgroup_file(pid, "pids", "pids.max").read_text() == "77\n"
    assert client.exec(container, "cat", "/proc/version") == ""
    assert "/proc/sysvipc ro" in Path(f"/proc/{pid}/mountinfo").read_text()
    assert (root / "etc/license").read_text() == "for all\n"
    assert status["Umask"] == "0027"
    assert int(status["CapInh"], 16) != 0
    assert (root / "dev/own").stat().st_uid == 1000
    if Path("/etc/localtime").exists():
        assert (root / "etc/localtime").read_bytes() == Path("/etc/localtime").read_bytes()
    assert told.read_text() == "run\n"
    based = handler == "runc"
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert (b"BASE=1" in environment) is based
    assert (" /base " in Path(f"/proc/{pid}/mountinfo").read_text()) is based


def test_a_container_that_does_not_match_gets_no_hook(client: Client, told: Path) -> None:
    told.unlink(missing_ok=True)
    client.run(client.run_pod())
    assert not told.exists()


def test_too_little_memory_is_refused_by_its_field(client: Client) -> None:
    pod = client.run_pod()
    code, words = refusal(client, pod, memory_limit_in_bytes=4 << 20)
    field = "config.linux.resources.memory_limit_in_bytes"
    assert (code, words.startswith(field), "min_memory" in words) == ("INVALID_ARGUMENT", True, True)


def test_a_hook_that_cannot_be_read_refuses_containers_until_it_can(client: Client, told: Path) -> None:
    broken = told.parent / "hooks/b.json"
    pod = client.run_pod()
    broken.write_text("{")
    try:
        code, words = refusal(client, pod)
    finally:
        broken.unlink()
    assert (code, f"containers.hooks_dirs: hook {broken}" in words) == ("UNIMPLEMENTED", True)
    assert client.create(pod)


def test_a_mount_of_the_request_wins_over_the_nodes(client: Client, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("own\n")
    mount = cri_pb2.Mount(container_path="/etc/license", host_path=str(tmp_path / "own"))
    container = client.run(client.run_pod(), mounts=(mount,))
    assert client.exec(container, "cat", "/etc/license") == "own\n"


def test_a_pod_on_the_nodes_network_keeps_the_nodes_sysctls(client: Client) -> None:
    before = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    client.run(client.run_pod(host_network=True))
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == before
