"""PodSandboxStats and its lists, held against the kernel's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client, cgroup_file, used

BUSY = ("sh", "-c", "sleep 1000 & sleep 1000 & while :; do :; done")


def pod_stats(client: Client, pod: str) -> Any:
    request = cri_pb2.PodSandboxStatsRequest(pod_sandbox_id=pod)
    return client.call("PodSandboxStats", request).stats


def listed(client: Client, **wanted: Any) -> list[str]:
    request = cri_pb2.ListPodSandboxStatsRequest(filter=cri_pb2.PodSandboxStatsFilter(**wanted))
    return sorted(one.attributes.id for one in client.call("ListPodSandboxStats", request).stats)


def net_dev(pid: int, name: str) -> list[int]:
    """rx bytes, rx errors, tx bytes, tx errors of an interface, as the container's process sees them."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    columns = next(line.split(":")[1].split() for line in lines if line.strip().startswith(f"{name}:"))
    return [int(columns[index]) for index in (0, 2, 8, 10)]


def test_a_pod_s_numbers_are_its_cgroup_s_and_its_network_s(client: Client) -> None:
    pod = client.run_pod(labels={"a": "b"})
    busy, quiet = client.run(pod, "busy", BUSY), client.run(pod, "quiet")
    client.exec(quiet, "ping", "-c", "3", "-i", "0.1", gateway(client))
    pid = client.pid(busy)
    group = cgroup_file(pid, "cpuacct", "").parent
    assert group.name == client.pods[pod].linux.cgroup_parent.rpartition("/")[2]

    network_before, (cpu_before, _) = net_dev(pid, "eth0"), used(pid)
    stats = pod_stats(client, pod)
    network_after, (cpu_after, memory) = net_dev(pid, "eth0"), used(pid)

    assert (stats.attributes.id, stats.attributes.metadata, dict(stats.attributes.labels)) == (
        pod, client.pods[pod].metadata, {"a": "b"},
    )  # fmt: skip
    linux = stats.linux
    assert cpu_before <= linux.cpu.usage_core_nano_seconds.value <= cpu_after
    assert abs(linux.memory.usage_bytes.value - memory) < 2**22
    assert 0 < linux.memory.working_set_bytes.value <= linux.memory.usage_bytes.value
    assert linux.process.process_count.value == 4  # a shell with two sleeps, and a sleep
    eth0 = linux.network.default_interface
    got = [eth0.rx_bytes.value, eth0.rx_errors.value, eth0.tx_bytes.value, eth0.tx_errors.value]
    assert all(a <= b <= c for a, b, c in zip(network_before, got, network_after, strict=True))
    assert (eth0.name, got[2] > 3 * 64) == ("eth0", True)
    assert list(linux.network.interfaces) == []  # no loopback, and the default one is not repeated
    assert sorted(one.attributes.id for one in linux.containers) == sorted([busy, quiet])
    for part in (linux.cpu, linux.memory, linux.network, linux.process):
        assert part.timestamp > 0
    members = sum(one.cpu.usage_core_nano_seconds.value for one in linux.containers)
    assert members <= linux.cpu.usage_core_nano_seconds.value


def gateway(client: Client) -> str:
    network, _, _ = client.daemon.subnet.partition("/")
    return f"{network.rpartition('.')[0]}.1"


def test_reading_them_starts_no_process_and_leaves_no_thread(client: Client) -> None:
    pods = [client.run_pod() for _ in range(3)]
    for pod in pods:
        client.run(pod)
    tasks = Path(f"/proc/{client.daemon.pid}/task")
    listed(client)
    children, threads = client.daemon.log.count("started a child"), len(list(tasks.iterdir()))
    for _ in range(5):
        assert listed(client) == sorted(pods)
    assert client.daemon.log.count("started a child") == children
    assert len(list(tasks.iterdir())) <= threads


def test_with_the_host_s_network_there_is_none(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    client.run(pod)
    stats = pod_stats(client, pod)
    assert not stats.linux.HasField("network")
    assert stats.linux.process.process_count.value == 1


def test_a_pod_without_a_cgroup_parent_is_the_sum_of_its_containers_alone(client: Client) -> None:
    pods = [client.run_pod(cgroup_parent="") for _ in range(2)]
    for pod in pods:
        client.run(pod)
    stats = pod_stats(client, pods[0])
    assert stats.linux.process.process_count.value == 1
    assert stats.linux.cpu.usage_core_nano_seconds.value > 0


def test_the_list_is_filtered_and_skips_what_is_not_ready(client: Client) -> None:
    one, two, stopped = client.run_pod(labels={"n": "1"}), client.run_pod(labels={"n": "2"}), client.run_pod()
    client.stop_pod(stopped)
    assert listed(client) == sorted([one, two])
    assert listed(client, label_selector={"n": "2"}) == [two]
    assert listed(client, id=one[:20]) == [one]
    assert listed(client, id=one, label_selector={"n": "2"}) == []
    messages = list(client.call("StreamPodSandboxStats", cri_pb2.StreamPodSandboxStatsRequest()))
    streamed = [item.attributes.id for message in messages for item in message.pod_sandbox_stats]
    assert sorted(streamed) == sorted([one, two])
    for id_, code in ((stopped, grpc.StatusCode.FAILED_PRECONDITION), ("f" * 64, grpc.StatusCode.NOT_FOUND)):
        with pytest.raises(grpc.RpcError) as error:
            pod_stats(client, id_)
        assert error.value.code() == code


def test_an_empty_pod_has_no_processes(client: Client) -> None:
    pod = client.run_pod()
    linux = pod_stats(client, pod).linux
    assert list(linux.containers) == []
    assert linux.network.default_interface.name == "eth0"
