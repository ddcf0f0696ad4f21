"""UpdateContainerResources, held against the cgroup's files: wholly, or not at all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import UNIFIED, Client, cgroup_file, limits

M = 1 << 20
BEGIN = {
    "cpu_period": 100_000,
    "cpu_quota": 20_000,
    "cpu_shares": 1024,
    "memory_limit_in_bytes": 64 * M,
    "memory_swap_limit_in_bytes": 64 * M,
}


def kernel(client: Client, container: str) -> dict[str, str]:
    return limits(client.pid(container))


def update(client: Client, container: str, **linux: Any) -> None:
    client.call(
        "UpdateContainerResources",
        cri_pb2.UpdateContainerResourcesRequest(
            container_id=container, linux=cri_pb2.LinuxContainerResources(**linux), annotations={"a": "b"}
        ),
    )


def refused(client: Client, container: str, **linux: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        update(client, container, **linux)
    return error.value


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_a_running_container_s_limits_change_in_the_kernel_and_in_its_status(
    client: Client, handler: str
) -> None:
    container = client.run(client.run_pod(handler=handler), **BEGIN)
    before, pid, status = kernel(client, container), client.pid(container), client.status(container).status
    assert (before["quota"], before["memory"]) == ("20000", str(64 * M))

    update(client, container, cpu_quota=50_000, cpu_shares=512)
    expected = {**before, "quota": "50000", "shares": "512"}
    assert kernel(client, container) == expected

    update(client, container, memory_limit_in_bytes=128 * M)
    assert kernel(client, container) == {**expected, "memory": str(128 * M), "both": str(128 * M)}
    update(client, container, memory_limit_in_bytes=32 * M)
    assert kernel(client, container) == {**expected, "memory": str(32 * M), "both": str(32 * M)}
    update(client, container)
    assert kernel(client, container) == {**expected, "memory": str(32 * M), "both": str(32 * M)}

    after = client.status(container).status
    linux = after.resources.linux
    assert (linux.cpu_period, linux.cpu_quota, linux.cpu_shares, linux.memory_limit_in_bytes) == (
        100_000, 50_000, 512, 32 * M,
    )  # fmt: skip
    assert (client.pid(container), after.started_at) == (pid, status.started_at)
    assert (after.state, after.annotations) == (cri_pb2.CONTAINER_RUNNING, status.annotations)


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_what_the_kernel_refuses_changes_nothing_at_all(client: Client, handler: str) -> None:
    container = client.run(client.run_pod(handler=handler), **BEGIN)
    client.exec(container, "dd", "if=/dev/zero", "of=/dev/shm/held", "bs=1M", "count=30")
    before, status = kernel(client, container), client.status(container).status
    # Held in memory, and there is no swap to put it into.
    error = refused(client, container, cpu_shares=77, cpu_quota=33_000, memory_limit_in_bytes=8 * M)
    assert kernel(client, container) == before
    assert client.status(container).status == status
    # Version 2 would kill until it fits: there it is the daemon that refuses.
    words = f"that container {container} needs" if UNIFIED else f"update of container {container}"
    assert words in error.details()
    # No machine has that processor.
    refused(client, container, cpu_shares=77, cpuset_cpus="4095")
    assert kernel(client, container) == before
    assert client.status(container).status == status


def test_a_created_container_gets_them_at_its_start(client: Client) -> None:
    container = client.create(client.run_pod(), **BEGIN)
    update(client, container, cpu_quota=40_000, memory_limit_in_bytes=48 * M)
    linux = client.status(container).status.resources.linux
    assert (linux.cpu_quota, linux.memory_limit_in_bytes, linux.memory_swap_limit_in_bytes) == (
        40_000, 48 * M, 48 * M,
    )  # fmt: skip
    client.start(container)
    seen = kernel(client, container)
    assert (seen["quota"], seen["memory"], seen["both"]) == ("40000", str(48 * M), str(48 * M))
    assert client.exec(container, "true") == ""  # and the device rules are still there
    client.exec(container, "sh", "-c", "echo x >/dev/null")


def test_other_states_and_bad_values_are_refused_by_name(client: Client) -> None:
    container = client.run(client.run_pod(), **BEGIN)
    cases = {
        "linux.cpu_period: ": {"cpu_period": 5},
        "linux.memory_swap_limit_in_bytes: ": {"memory_swap_limit_in_bytes": 5 * M},
        "linux.hugepage_limits[0].page_size: ": {
            "hugepage_limits": [cri_pb2.HugepageLimit(page_size="7MB", limit=1)]
        },
    }
    if not UNIFIED:
        cases["linux.unified: "] = {"unified": {"memory.high": "1"}}
    before = kernel(client, container)
    for beginning, linux in cases.items():
        assert refused(client, container, **linux).details().startswith(beginning)
    assert kernel(client, container) == before
    client.stop(container)
    assert refused(client, container, cpu_shares=5).code() == grpc.StatusCode.FAILED_PRECONDITION
    assert refused(client, "f" * 64, cpu_shares=5).code() == grpc.StatusCode.NOT_FOUND


def test_a_pod_s_totals_are_kept_and_its_cgroup_left_alone(client: Client) -> None:
    pod = client.run_pod()
    container = client.run(pod, **BEGIN)
    group = cgroup_file(client.pid(container), "cpu", "").parent
    file = group / ("cpu.weight" if UNIFIED else "cpu.shares")
    before = file.read_text()
    request = cri_pb2.UpdatePodSandboxResourcesRequest(
        pod_sandbox_id=pod,
        overhead=cri_pb2.LinuxContainerResources(memory_limit_in_bytes=M),
        resources=cri_pb2.LinuxContainerResources(cpu_shares=333, memory_limit_in_bytes=200 * M),
    )
    client.call("UpdatePodSandboxResources", request)
    asked = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
    info = json.loads(client.call("PodSandboxStatus", asked).info["info"])
    assert (info["overhead"], info["resources"]) == (
        {"memory_limit": M},
        {"cpu_shares": 333, "memory_limit": 200 * M},
    )
    assert file.read_text() == before
    assert kernel(client, container)["memory"] == str(64 * M)
    with pytest.raises(grpc.RpcError) as error:
        client.call(
            "UpdatePodSandboxResources", cri_pb2.UpdatePodSandboxResourcesRequest(pod_sandbox_id="f" * 64)
        )
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_bundle_says_what_is_in_force(client: Client) -> None:
    container = client.run(client.run_pod(), **BEGIN)
    update(client, container, cpu_shares=99)
    info: Any = json.loads(client.status(container, verbose=True).info["info"])
    bundle = json.loads(Path(info["bundle"], "config.json").read_text())
    assert bundle["linux"]["resources"]["cpu"] == {"shares": 99, "period": 100_000, "quota": 20_000}
    assert bundle["linux"]["resources"]["devices"]


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_the_quota_of_a_container_can_end(client: Client, handler: str) -> None:
    container = client.run(client.run_pod(handler=handler), **BEGIN)
    update(client, container, cpu_quota=-1)

    assert kernel(client, container)["quota"] == "-1"
    assert client.status(container).status.resources.linux.cpu_quota == -1


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_systemd_gives_no_limit_back_that_was_changed_or_refused(client: Client, handler: str) -> None:
    """systemd writes a scope's files anew, with whatever changes, from what it was told."""
    if not client.daemon.systemd_cgroups():
        pytest.skip("only where systemd makes the cgroups: tests/node/run.sh")
    begin = {**BEGIN, "unified": {"memory.high": str(60 * M)}}
    container = client.run(client.run_pod(handler=handler), **begin)
    high = cgroup_file(client.pid(container), "", "memory.high")

    def seen() -> tuple[dict[str, str], str]:
        return kernel(client, container), high.read_text().strip()

    assert seen()[1] == str(60 * M)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert seen()[1] == str(60 * M)
    update(client, container, cpu_quota=50_000, memory_limit_in_bytes=128 * M)
    update(client, container, unified={"memory.high": str(100 * M)})
    before = seen()
    assert (before[0]["quota"], before[0]["memory"], before[1]) == (
        "50000", str(128 * M), str(100 * M),
    )  # fmt: skip
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert seen() == before
    # No machine has that processor. What was refused must not come back with the next change.
    refused(client, container, cpu_shares=77, cpu_quota=33_000, cpuset_cpus="4095")
    assert seen() == before
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    update(client, container, memory_limit_in_bytes=96 * M)
    assert seen() == ({**before[0], "memory": str(96 * M), "both": str(96 * M)}, before[1])
