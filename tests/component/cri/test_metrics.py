"""Metrics, as critest's newer specs look at them, and each number held against the kernel's own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from api.proto import cri_pb2
from tests.component.cri.client import Client, cgroup_file

M = 1 << 20
WRITES = "for i in 0 1 2 3 4 5 6 7 8 9; do echo $i >/file$i; done; sync; echo >/ready; exec sleep 1000"
LIMITS = {
    "cpu_period": 100_000,
    "cpu_quota": 20_000,
    "cpu_shares": 1024,
    "memory_limit_in_bytes": 64 * M,
    "memory_swap_limit_in_bytes": 64 * M,
}
MAY_BE_EMPTY = {  # a container that reads and writes nothing on a disk has no samples of these
    "container_blkio_device_usage_total", "container_fs_reads_bytes_total", "container_fs_reads_total",
    "container_fs_writes_bytes_total", "container_fs_writes_total",
}  # fmt: skip
BASE = ("container", "id", "image", "namespace", "pod")


def descriptors(client: Client) -> dict[str, tuple[str, ...]]:
    found = client.call("ListMetricDescriptors", cri_pb2.ListMetricDescriptorsRequest()).descriptors
    assert all(one.help for one in found)
    assert len({one.name for one in found}) == len(found)
    return {one.name: tuple(one.label_keys) for one in found}


def pod_metrics(client: Client) -> dict[str, Any]:
    answer = client.call("ListPodSandboxMetrics", cri_pb2.ListPodSandboxMetricsRequest())
    return {one.pod_sandbox_id: one for one in answer.pod_metrics}


def values(samples: Any) -> dict[tuple[str, ...], int]:
    """Name and the family's own labels -> value."""
    return {(one.name, *one.label_values[len(BASE) :]): one.value.value for one in samples}


def test_what_is_described_is_told_with_as_many_labels_and_what_is_told_is_described(client: Client) -> None:
    pod = client.run_pod()
    container = client.run(pod, command=("sh", "-c", WRITES), **LIMITS)
    described, told = descriptors(client), pod_metrics(client)[pod]
    assert [one.container_id for one in told.container_metrics] == [container]
    samples = [*told.metrics, *told.container_metrics[0].metrics]
    assert {one.name: len(one.label_values) for one in samples} == {
        name: len(keys)
        for name, keys in described.items()
        if name not in MAY_BE_EMPTY or name in {one.name for one in samples}
    }
    assert all(keys[: len(BASE)] == BASE for keys in described.values())
    meta = client.pods[pod].metadata
    for one in told.container_metrics[0].metrics:
        assert one.label_values[:2] == ["main", container]
        assert one.label_values[3:5] == [meta.namespace, meta.name]
    assert all(one.timestamp > 0 for one in samples)
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    assert len(described) == 56 if unified else len(described) == 50  # version 1 has no pressure


def test_a_container_s_numbers_are_the_kernel_s(client: Client) -> None:
    pod = client.run_pod()
    container = client.run(pod, command=("sh", "-c", WRITES), **LIMITS)
    pid = client.pid(container)
    client.exec(container, "sh", "-c", "until [ -e /ready ]; do sleep 0.05; done")
    group = {name: cgroup_file(pid, name, "") for name in ("memory", "pids", "cpuacct")}

    def number(controller: str, name: str) -> int:
        return int((group[controller] / name).read_text())

    def throttling() -> dict[str, int]:
        lines = cgroup_file(pid, "cpu", "cpu.stat").read_text().splitlines()
        return {key: int(value) for key, value in map(str.split, lines)}

    def page_faults() -> int:
        lines = (group["memory"] / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("pgfault "))

    # The kernel adds up a group's events every two seconds (FLUSH_TIME of mm/memcontrol.c), not at each look.
    while page_faults() <= 100:
        time.sleep(0.1)
    used, periods = number("cpuacct", "cpuacct.usage") // 10**9, throttling()["nr_periods"]
    got = values(pod_metrics(client)[pod].container_metrics[0].metrics)
    processes = [int(line) for line in (group["pids"] / "cgroup.procs").read_text().split()]
    files = sum(len(os.listdir(f"/proc/{one}/fd")) for one in processes)  # noqa: PTH208 - names only
    upper = client.daemon.state_dir / "containers" / container / "upper"
    assert {f"file{n}" for n in range(10)} < {path.name for path in upper.iterdir()}
    blocks = sum(path.lstat().st_blocks * 512 for path in (upper, *upper.rglob("*")))
    system = os.statvfs(upper)
    device = next(key[1] for key in got if key[0] == "container_fs_limit_bytes")
    exact = {
        ("container_spec_cpu_period",): 100_000,
        ("container_spec_cpu_quota",): 20_000,
        ("container_spec_cpu_shares",): 1024,
        ("container_spec_memory_limit_bytes",): 64 * M,
        ("container_spec_memory_swap_limit_bytes",): 64 * M,
        ("container_spec_memory_reservation_limit_bytes",): 0,
        ("container_processes",): len(processes),
        ("container_threads",): number("pids", "pids.current"),
        ("container_threads_max",): 0,
        ("container_file_descriptors",): files,
        ("container_sockets",): 0,
        ("container_oom_events_total",): 0,
        ("container_fs_usage_bytes", device): blocks,
        ("container_fs_limit_bytes", device): system.f_blocks * system.f_frsize,
        ("container_start_time_seconds",): client.status(container).status.started_at // 10**9,
        ("container_memory_max_usage_bytes",): number("memory", "memory.max_usage_in_bytes"),
        ("container_memory_swap",): 0,
    }
    assert {key: got.get(key) for key in exact} == exact
    assert len(processes) == 1
    assert used <= got["container_cpu_usage_seconds_total",] <= used + 1
    assert abs(got["container_memory_usage_bytes",] - number("memory", "memory.usage_in_bytes")) < M
    assert got["container_memory_failures_total", "pgfault", "container"] > 100
    assert periods <= got["container_cpu_cfs_periods_total",] <= throttling()["nr_periods"]
    assert abs(got["container_last_seen",] - time.time()) < 5


def test_network_numbers_are_the_pod_s_and_only_of_its_own_network(client: Client) -> None:
    own, host = client.run_pod(), client.run_pod(host_network=True)
    pid = client.pid(client.run(own))
    client.run(host)
    told = pod_metrics(client)
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    columns = next(line.split(":")[1].split() for line in lines if line.strip().startswith("eth0:"))
    got = values(told[own].metrics)
    assert {key[1] for key in got} == {"eth0"}
    assert 0 < got["container_network_transmit_bytes_total", "eth0"] <= int(columns[8])
    assert 0 < got["container_network_receive_packets_total", "eth0"] <= int(columns[1])
    assert list(told[host].metrics) == []
    assert len(told[host].container_metrics) == 1


def test_only_ready_pods_and_running_containers_are_told_of(client: Client) -> None:
    ready, stopped = client.run_pod(), client.run_pod()
    client.create(ready, "created")
    running = client.run(ready, "running")
    client.run(stopped)
    client.stop_pod(stopped)
    told = pod_metrics(client)
    assert {id_: [one.container_id for one in pod.container_metrics] for id_, pod in told.items()} == {
        ready: [running]
    }
    messages = list(client.call("StreamPodSandboxMetrics", cri_pb2.StreamPodSandboxMetricsRequest()))
    assert [one.pod_sandbox_id for message in messages for one in message.pod_sandbox_metrics] == [ready]
