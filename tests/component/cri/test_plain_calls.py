"""The calls that kubelet makes all day, held against the machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client, cgroup_file
from tests.images import catalogue

BUSY = ("sh", "-c", "while :; do :; done")


def container_stats(client: Client, container: str) -> Any:
    return client.call("ContainerStats", cri_pb2.ContainerStatsRequest(container_id=container)).stats


def listed_stats(client: Client, **wanted: Any) -> list[str]:
    request = cri_pb2.ListContainerStatsRequest(filter=cri_pb2.ContainerStatsFilter(**wanted))
    return sorted(one.attributes.id for one in client.call("ListContainerStats", request).stats)


def test_the_runtime_says_who_it_is_and_how_it_makes_cgroups(client: Client) -> None:
    version = client.call("Version", cri_pb2.VersionRequest())
    assert (version.version, version.runtime_name, version.runtime_api_version) == ("0.1.0", "crisp", "v1")
    assert version.runtime_version.count(".") >= 2
    driver = client.call("RuntimeConfig", cri_pb2.RuntimeConfigRequest()).linux.cgroup_driver
    with_systemd = Path("/run/systemd/system").is_dir()
    assert driver == (cri_pb2.SYSTEMD if with_systemd else cri_pb2.CGROUPFS)
    status = client.call("Status", cri_pb2.StatusRequest())
    assert {one.type: one.status for one in status.status.conditions} == {
        "RuntimeReady": True,
        "NetworkReady": True,
        "HandlersUsable": True,
    }
    assert status.features.mount_options
    assert dict(status.info) == {}


def test_a_container_s_numbers_are_the_kernel_s(client: Client) -> None:
    container = client.run(client.run_pod(), command=BUSY)
    group = cgroup_file(client.pid(container), "cpuacct", "cpuacct.usage")
    before = int(group.read_text())
    stats = container_stats(client, container)
    assert before <= stats.cpu.usage_core_nano_seconds.value <= int(group.read_text())
    assert stats.memory.usage_bytes.value > 0
    assert stats.attributes.metadata.name == "main"
    for part in (stats.cpu, stats.memory, stats.writable_layer):
        assert part.timestamp > 0
    assert Path(stats.writable_layer.fs_id.mountpoint).is_dir()


def test_usage_has_a_rate_once_there_are_two_readings_and_the_layer_grows(client: Client) -> None:
    container = client.run(client.run_pod(), command=BUSY)
    first = container_stats(client, container)
    assert not first.cpu.HasField("usage_nano_cores")
    client.exec(container, "dd", "if=/dev/zero", "of=/grown", "bs=1M", "count=4")
    deadline = time.monotonic() + 20
    stats = first
    while not stats.cpu.HasField("usage_nano_cores") and time.monotonic() < deadline:
        stats = container_stats(client, container)
    elapsed = stats.cpu.timestamp - first.cpu.timestamp
    used = stats.cpu.usage_core_nano_seconds.value - first.cpu.usage_core_nano_seconds.value
    assert stats.cpu.usage_nano_cores.value == used * 10**9 // elapsed > 0
    grown = stats.writable_layer.used_bytes.value - first.writable_layer.used_bytes.value
    assert 4 * 2**20 <= grown < 5 * 2**20
    assert stats.writable_layer.inodes_used.value == first.writable_layer.inodes_used.value + 1


def test_the_list_has_what_runs_and_a_stopped_one_keeps_its_layer(client: Client) -> None:
    one, two = client.run_pod(), client.run_pod()
    first = client.run(one, "first", labels={"a": "1"})
    second = client.run(two, "second", labels={"a": "2"})
    stopped = client.run(two, "stopped")
    client.stop(stopped)
    client.create(two, "created")
    assert listed_stats(client) == sorted([first, second])
    assert listed_stats(client, pod_sandbox_id=one) == [first]
    assert listed_stats(client, label_selector={"a": "2"}) == [second]
    assert listed_stats(client, id=first, label_selector={"a": "2"}) == []
    stats = container_stats(client, stopped)
    assert (stats.HasField("cpu"), stats.HasField("memory"), stats.HasField("writable_layer")) == (
        False, False, True,
    )  # fmt: skip
    with pytest.raises(grpc.RpcError) as error:
        container_stats(client, "f" * 64)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_reopened_log_gets_the_later_lines_and_the_old_one_none(client: Client) -> None:
    pod = client.run_pod()
    container = client.run(
        pod, command=("sh", "-c", "n=0; while :; do echo $n; n=$((n+1)); sleep 0.02; done")
    )
    path = Path(client.status(container).status.log_path)
    old = path.with_suffix(".old")
    path.rename(old)
    client.call("ReopenContainerLog", cri_pb2.ReopenContainerLogRequest(container_id=container))
    assert path.exists()
    kept = old.read_text()
    client.exec(container, "sleep", "0.3")  # lines are written meanwhile
    client.stop(container)
    assert old.read_text() == kept
    numbers = [int(line.split()[3]) for line in (kept + path.read_text()).splitlines()]
    assert numbers == list(range(len(numbers)))
    assert path.read_text()
    path.unlink()
    with pytest.raises(grpc.RpcError):
        client.call("ReopenContainerLog", cri_pb2.ReopenContainerLogRequest(container_id=container))
    assert not path.exists()


def test_every_name_of_an_image_gives_the_same_answer_and_none_an_empty_one(client: Client) -> None:
    def status(name: str) -> Any:
        request = cri_pb2.ImageStatusRequest(image=cri_pb2.ImageSpec(image=name))
        return client.images.ImageStatus(request, timeout=10)

    id_ = client.pull(catalogue.BUSYBOX)
    image = status(id_).image
    names = [*image.repo_tags, *image.repo_digests, id_.partition(":")[2], id_.partition(":")[2][:20]]
    assert image.id == id_
    assert image.size > 0
    assert catalogue.BUSYBOX in image.repo_tags
    assert [name for name in names if status(name).image != image] == []
    assert not status("registry.k8s.io/never/pulled:1").HasField("image")


def test_the_image_file_system_is_told_with_what_it_holds(client: Client) -> None:
    told = client.images.ImageFsInfo(cri_pb2.ImageFsInfoRequest(), timeout=10)
    for use in (told.image_filesystems[0], told.container_filesystems[0]):
        assert Path(use.fs_id.mountpoint).is_dir()
        assert use.timestamp > 0
        assert use.used_bytes.value > 0
        assert use.inodes_used.value > 0
