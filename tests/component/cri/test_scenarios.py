"""The calls that critest never makes, held against the kernel's own files and not against other answers.

Every test speaks to the CRI socket alone, so that all of them run against containerd too, at the end. Where
it fails one, the rule that makes Crisp right is named.

Each test was seen to fail once against a wrong implementation, in the order of the file: an
UpdateRuntimeConfig that raises; totals of an unknown pod taken; limits kept in the record alone; a refusal of
the kernel swallowed; limits of an ended container taken; processor time doubled; a pod's containers left out;
the last message of a stream sent twice; a pod's end not told; an unbuilt call that fails in another way; a
list that ignores its filter; a process too many told; a file left where a checkpoint failed; the size of
images tripled.
"""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2, cri_pb2_grpc
from benchmarks.sides import Containerd
from tests import leaks
from tests.component.cri.client import UNIFIED, Client, cgroup_file, limits, used
from tests.images.registry import Registry

M = 1 << 20
LIMITS = {"cpu_period": 100_000, "cpu_quota": 20_000, "cpu_shares": 512, "memory_limit_in_bytes": 64 * M}
SH = ("sh", "-c", "sleep 1000 & wait")


def kernel(kubelet: Client, container: str) -> list[int]:
    """Quota, shares and memory limit as the kernel has them."""
    found = limits(kubelet.pid(container))
    return [int(found[name]) for name in ("quota", "shares", "memory")]


def refused(kubelet: Client, method: str, request: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        answer = kubelet.call(method, request)
        if hasattr(answer, "__next__"):
            list(answer)
    return error.value


def update(container: str, **linux: Any) -> cri_pb2.UpdateContainerResourcesRequest:
    limits = cri_pb2.LinuxContainerResources(**linux)
    return cri_pb2.UpdateContainerResourcesRequest(container_id=container, linux=limits)


def pod(kubelet: Client, **wanted: Any) -> str:
    return kubelet.run_pod(host_network=True, **wanted)


def test_the_pod_network_range_is_taken_and_nothing_is_written(kubelet: Client) -> None:
    places = [Path("/etc/cni/net.d"), kubelet.daemon.directory / "net.d"]
    before = [sorted(map(str, place.glob("*"))) for place in places]
    kubelet.call("UpdateRuntimeConfig", cri_pb2.UpdateRuntimeConfigRequest())
    network = cri_pb2.NetworkConfig(pod_cidr="10.1.0.0/24,fd00::/64")
    config = cri_pb2.RuntimeConfig(network_config=network)
    kubelet.call("UpdateRuntimeConfig", cri_pb2.UpdateRuntimeConfigRequest(runtime_config=config))
    assert [sorted(map(str, place.glob("*"))) for place in places] == before


def test_a_pod_s_totals_are_told_and_change_no_limit(kubelet: Client) -> None:
    sandbox = pod(kubelet)
    container = kubelet.run(sandbox, **LIMITS)
    weight = cgroup_file(kubelet.pid(container), "cpu", "").parent / (
        "cpu.weight" if UNIFIED else "cpu.shares"
    )
    before = kernel(kubelet, container), weight.read_text()
    totals = cri_pb2.LinuxContainerResources(cpu_shares=77, memory_limit_in_bytes=128 * M)
    request = cri_pb2.UpdatePodSandboxResourcesRequest(pod_sandbox_id=sandbox, resources=totals)
    kubelet.call("UpdatePodSandboxResources", request)
    assert (kernel(kubelet, container), weight.read_text()) == before
    request.pod_sandbox_id = "f" * 64
    assert refused(kubelet, "UpdatePodSandboxResources", request).code() is grpc.StatusCode.NOT_FOUND


def test_a_running_container_s_limits_change_in_the_kernel_and_nothing_else(kubelet: Client) -> None:
    container = kubelet.run(pod(kubelet), **LIMITS)
    pid, started = kubelet.pid(container), kubelet.status(container).status.started_at
    assert kernel(kubelet, container) == [20_000, 512, 64 * M]
    kubelet.call("UpdateContainerResources", update(container, cpu_quota=50_000))
    assert kernel(kubelet, container) == [50_000, 512, 64 * M]
    kubelet.call("UpdateContainerResources", update(container, memory_limit_in_bytes=96 * M))
    assert kernel(kubelet, container) == [50_000, 512, 96 * M]
    status = kubelet.status(container).status
    limits = status.resources.linux
    assert (limits.cpu_quota, limits.cpu_shares, limits.memory_limit_in_bytes) == (50_000, 512, 96 * M)
    assert (kubelet.pid(container), status.started_at) == (pid, started)
    error = refused(kubelet, "UpdateContainerResources", update("f" * 64, cpu_shares=5))
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_a_limit_that_the_kernel_refuses_changes_no_other(kubelet: Client) -> None:
    container = kubelet.run(pod(kubelet), **LIMITS)
    kubelet.exec(container, "dd", "if=/dev/zero", "of=/dev/shm/held", "bs=1M", "count=30")
    before, status = kernel(kubelet, container), kubelet.status(container).status
    refused(
        kubelet, "UpdateContainerResources", update(container, cpu_shares=77, memory_limit_in_bytes=8 * M)
    )
    assert kernel(kubelet, container) == before
    assert kubelet.status(container).status == status


def test_an_ended_container_s_limits_are_refused(kubelet: Client) -> None:
    container = kubelet.run(pod(kubelet), **LIMITS)
    kubelet.stop(container)
    error = refused(kubelet, "UpdateContainerResources", update(container, cpu_shares=5))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_usage_of_containers_is_their_cgroups(kubelet: Client) -> None:
    sandbox = pod(kubelet)
    one, other = (kubelet.run(sandbox, name, labels={"n": name}, **LIMITS) for name in ("one", "other"))
    pid = kubelet.pid(one)
    before, _ = used(pid, own=True)
    stats = kubelet.call("ContainerStats", cri_pb2.ContainerStatsRequest(container_id=one)).stats
    after, memory = used(pid, own=True)
    assert before <= stats.cpu.usage_core_nano_seconds.value <= after
    assert abs(stats.memory.usage_bytes.value - memory) < 2 * M
    assert 0 < stats.memory.working_set_bytes.value <= stats.memory.usage_bytes.value
    assert min(stats.cpu.timestamp, stats.memory.timestamp) > 0
    listed = {item.id: item for item in containers(kubelet)}
    assert (stats.attributes.metadata, stats.attributes.labels) == (listed[one].metadata, listed[one].labels)

    def found(**wanted: Any) -> set[str]:
        request = cri_pb2.ListContainerStatsRequest(filter=cri_pb2.ContainerStatsFilter(**wanted))
        return {entry.attributes.id for entry in kubelet.call("ListContainerStats", request).stats}

    assert found() == {one, other}
    assert found(id=one) == {one}
    assert found(pod_sandbox_id=sandbox, label_selector={"n": "other"}) == {other}
    assert found(id=one, label_selector={"n": "other"}) == set()


def test_usage_of_a_pod_is_its_cgroup_s(kubelet: Client) -> None:
    sandbox, other = pod(kubelet, labels={"n": "1"}), pod(kubelet, labels={"n": "2"})
    container = kubelet.run(sandbox, command=SH)
    pid = kubelet.pid(container)
    before, _ = used(pid)
    stats = kubelet.call("PodSandboxStats", cri_pb2.PodSandboxStatsRequest(pod_sandbox_id=sandbox)).stats
    after, _ = used(pid)
    linux = stats.linux
    assert before <= linux.cpu.usage_core_nano_seconds.value <= after
    assert min(linux.cpu.timestamp, linux.memory.timestamp) > 0
    assert linux.memory.working_set_bytes.value > 0
    assert [one.attributes.id for one in linux.containers] == [container]
    assert linux.containers[0].cpu.usage_core_nano_seconds.value <= linux.cpu.usage_core_nano_seconds.value
    assert stats.attributes.metadata == kubelet.pods[sandbox].metadata

    def found(**wanted: Any) -> set[str]:
        request = cri_pb2.ListPodSandboxStatsRequest(filter=cri_pb2.PodSandboxStatsFilter(**wanted))
        return {entry.attributes.id for entry in kubelet.call("ListPodSandboxStats", request).stats}

    assert found() == {sandbox, other}
    assert found(label_selector={"n": "2"}) == {other}
    kubelet.stop_pod(other)
    assert found() == {sandbox}


def test_streamed_lists_have_every_item_once(kubelet: Client) -> None:
    sandbox = pod(kubelet)
    container = kubelet.run(sandbox)
    images = {image.id for image in kubelet.images.ListImages(cri_pb2.ListImagesRequest()).images}

    def ids(stub: Any, method: str, items: str, id_: str) -> list[str]:
        found = []
        for message in getattr(stub, method)(getattr(cri_pb2, f"{method}Request")(), timeout=30):
            assert len(getattr(message, items)) > 0
            for item in getattr(message, items):
                for name in id_.split("."):
                    item = getattr(item, name)
                found.append(item)
        return found

    runtime = kubelet.runtime
    assert ids(runtime, "StreamPodSandboxes", "pod_sandboxes", "id") == [sandbox]
    assert ids(runtime, "StreamContainers", "containers", "id") == [container]
    assert ids(runtime, "StreamContainerStats", "container_stats", "attributes.id") == [container]
    assert ids(runtime, "StreamPodSandboxStats", "pod_sandbox_stats", "attributes.id") == [sandbox]
    assert ids(runtime, "StreamPodSandboxMetrics", "pod_sandbox_metrics", "pod_sandbox_id") == [sandbox]
    streamed = ids(kubelet.images, "StreamImages", "images", "id")
    assert (set(streamed), len(streamed)) == (images, len(images))


def test_events_of_a_life_come_in_order_after_what_they_tell(kubelet: Client) -> None:
    stream = kubelet.runtime.GetContainerEvents(cri_pb2.GetEventsRequest())
    stream.initial_metadata()
    sandbox = pod(kubelet)
    container = kubelet.create(sandbox)
    kubelet.start(container)
    pid = kubelet.pid(container)
    kubelet.stop_pod(sandbox)
    kubelet.remove_pod(sandbox)
    told = []
    kinds = cri_pb2.ContainerEventType
    for event in stream:
        if event.pod_sandbox_status.id != sandbox:
            continue  # containerd keeps what nobody has read for the first who comes
        assert event.created_at > 0
        assert event.pod_sandbox_status.metadata == kubelet.pods[sandbox].metadata
        told.append((event.container_id, kinds.Name(event.container_event_type).split("_")[1]))
        if told[-1] == (container, "STOPPED"):
            assert not Path(f"/proc/{pid}/exe").exists()
            states = {one.id: one.state for one in event.containers_statuses}
            assert states == {container: cri_pb2.CONTAINER_EXITED}
        if told[-1] == (sandbox, "DELETED"):
            break
    stream.cancel()
    each = ["CREATED", "STARTED", "STOPPED", "DELETED"]
    assert [kind for id_, kind in told if id_ == container] == each
    assert [kind for id_, kind in told if id_ == sandbox] == each
    assert told.index((container, "STOPPED")) < told.index((sandbox, "STOPPED"))


def test_pods_are_neither_checkpointed_nor_restored_and_nothing_is_written(kubelet: Client) -> None:
    sandbox = pod(kubelet)
    container = kubelet.run(sandbox)
    with tempfile.TemporaryDirectory() as place:
        request = cri_pb2.CheckpointPodRequest(
            pod_sandbox_id=sandbox, output_path=place, container_ids=[container]
        )
        error = refused(kubelet, "CheckpointPod", request)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert list(Path(place).iterdir()) == []
        restore = cri_pb2.RestorePodRequest(checkpoint_path=place)
        assert refused(kubelet, "RestorePod", restore).code() is grpc.StatusCode.UNIMPLEMENTED
    assert [one.id for one in containers(kubelet)] == [container]


def test_images_by_name_are_that_image_or_none(kubelet: Client) -> None:
    id_ = kubelet.pull()

    def listed(name: str) -> list[Any]:
        wanted = cri_pb2.ImageFilter(image=cri_pb2.ImageSpec(image=name))
        return list(kubelet.images.ListImages(cri_pb2.ListImagesRequest(filter=wanted)).images)

    status = kubelet.images.ImageStatus(cri_pb2.ImageStatusRequest(image=cri_pb2.ImageSpec(image=id_)))
    assert listed(id_) == [status.image]
    assert listed("registry.k8s.io/absent:1") == []


def test_metrics_are_described_and_are_the_kernel_s(kubelet: Client) -> None:
    sandbox = pod(kubelet)
    container = kubelet.run(sandbox, command=SH, **LIMITS)
    pid = kubelet.pid(container)
    described = kubelet.call("ListMetricDescriptors", cri_pb2.ListMetricDescriptorsRequest()).descriptors
    labels = {one.name: len(one.label_keys) for one in described}
    deadline = time.monotonic() + 10
    while True:  # a reading may be from before the shell had its child
        answer = kubelet.call("ListPodSandboxMetrics", cri_pb2.ListPodSandboxMetricsRequest())
        (mine,) = answer.pod_metrics
        (told,) = mine.container_metrics
        assert (mine.pod_sandbox_id, told.container_id) == (sandbox, container)
        assert {one.name: len(one.label_values) for one in told.metrics}.items() <= labels.items()
        got = {one.name: one.value.value for one in told.metrics}
        if got["container_processes"] == 2 or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    processes = cgroup_file(pid, "pids", "cgroup.procs").read_text().split()
    assert got["container_processes"] == len(processes) == 2
    assert got["container_spec_memory_limit_bytes"] == int(limits(pid)["memory"])
    assert abs(got["container_memory_usage_bytes"] - used(pid, own=True)[1]) < 2 * M
    assert got["container_cpu_usage_seconds_total"] == used(pid, own=True)[0] // 10**9


def test_a_checkpoint_is_an_archive_or_an_error_and_the_container_runs_on(kubelet: Client) -> None:
    """Which of both, the machine's criu decides."""
    container = kubelet.run(pod(kubelet))
    pid, started = kubelet.pid(container), kubelet.status(container).status.started_at
    with tempfile.TemporaryDirectory() as place:
        location = Path(place, "checkpoint.tar")
        request = cri_pb2.CheckpointContainerRequest(container_id=container, location=str(location))
        try:
            kubelet.call("CheckpointContainer", request)
        except grpc.RpcError:
            assert list(Path(place).iterdir()) == []
        else:
            with tarfile.open(location) as archive:
                assert any("pages-" in name for name in archive.getnames())
    assert (kubelet.pid(container), kubelet.status(container).status.started_at) == (pid, started)
    assert kubelet.exec(container, "echo", "alive") == "alive\n"
    request.container_id = "f" * 64
    assert refused(kubelet, "CheckpointContainer", request).code() is grpc.StatusCode.NOT_FOUND


def test_the_image_file_system_is_told_as_large_as_what_lies_there(kubelet: Client) -> None:
    kubelet.pull()
    deadline = time.monotonic() + 30
    while True:  # containerd looks at its snapshots every ten seconds, and at its start before there is one
        info = kubelet.images.ImageFsInfo(cri_pb2.ImageFsInfoRequest())
        assert info.image_filesystems
        images, *_ = info.image_filesystems
        if images.used_bytes.value or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    layers, *_ = info.container_filesystems or info.image_filesystems
    place = Path(images.fs_id.mountpoint)
    assert place.stat().st_dev == Path(layers.fs_id.mountpoint).stat().st_dev
    blocks = {file.st_ino: file.st_blocks * 512 for file in (path.lstat() for path in place.rglob("*"))}
    size = sum(blocks.values())
    assert abs(images.timestamp - time.time_ns()) < 60 * 10**9
    assert size / 2 < images.used_bytes.value < 2 * size
    assert 0 < images.inodes_used.value < 2 * len(blocks)


def containers(kubelet: Client) -> list[Any]:
    return list(kubelet.call("ListContainers", cri_pb2.ListContainersRequest()).containers)


@pytest.fixture
def kubelet(client: Client) -> Client:
    return client


# ---- the same against containerd

DIFFERENT = {
    "test_an_ended_container_s_limits_are_refused": "15.1.5: nobody can hold what does not run to its limits",
    "test_images_by_name_are_that_image_or_none": "15.1.3: who asks for one image means it",
}
"""What containerd 2.4.2 fails, and the rule of docs/contract.md by which Crisp is right."""


@dataclass(frozen=True, slots=True)
class Peer:
    """containerd in the place of the daemon that a client speaks to."""

    side: Containerd
    channel: grpc.Channel
    cgroup_prefix: str = "containerd-scenarios"

    @property
    def directory(self) -> Path:
        return self.side.directory

    def pod_parent(self, name: str) -> str:
        """containerd takes paths, as long as its configuration does not say systemd."""
        return f"/{self.cgroup_prefix}-pods/{name}"

    def runtime(self) -> Any:
        return cri_pb2_grpc.RuntimeServiceStub(self.channel)

    def images(self) -> Any:
        return cri_pb2_grpc.ImageServiceStub(self.channel)


@contextlib.contextmanager
def containerd(registry: Registry) -> Iterator[Client]:
    with contextlib.ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peer-")))
        top.chmod(0o755)
        side = Containerd(top / "c")
        stack.callback(unmount_below, top)
        stack.enter_context(side.running(registry))
        channel = stack.enter_context(grpc.insecure_channel(f"unix:{side.socket}"))
        peer: Any = Peer(side, channel)
        kubelet = Client(peer)
        stack.callback(remove_groups, peer.cgroup_prefix)
        stack.callback(end_all, kubelet)
        yield kubelet


def remove_groups(prefix: str) -> None:
    for group in reversed(list(leaks.cgroups())):
        if f"/{prefix}" in group:
            Path(group).rmdir()


def unmount_below(top: Path) -> None:
    from benchmarks.place import unmount_below as unmount

    unmount(top)


def end_all(kubelet: Client) -> None:
    for item in kubelet.call("ListPodSandbox", cri_pb2.ListPodSandboxRequest()).items:
        kubelet.stop_pod(item.id)
        kubelet.remove_pod(item.id)


@pytest.mark.timeout(300)
def test_containerd_differs_only_where_a_rule_says_why(
    prepared_machine: None, image_registry: Registry
) -> None:
    mine = test_containerd_differs_only_where_a_rule_says_why.__name__
    scenarios: dict[str, Callable[[Client], None]] = {
        name: test for name, test in globals().items() if name.startswith("test_") and name != mine
    }
    failed = {}
    with containerd(image_registry) as kubelet:
        kubelet.pull()
        for name, scenario in scenarios.items():
            try:
                scenario(kubelet)
            except (AssertionError, grpc.RpcError, pytest.fail.Exception) as error:
                failed[name] = str(error)[:1500]
            finally:
                end_all(kubelet)
    assert set(failed) == set(DIFFERENT), failed
