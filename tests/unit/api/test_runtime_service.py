"""Each call reaches its verb, translated and in its realm, and nothing of another realm is seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from api.proto import cri_pb2
from api.runtime_service import RuntimeService, fit
from api.streaming.server import Limits, StreamingServer
from api.translate.container_request import container_spec
from api.translate.pod_request import pod_spec
from oci.errors import Absent, BadInput
from oci.metrics import FAMILIES
from oci.workload import ContainerId, PodId
from shim.records import ContainerState
from tests.unit.api import doubles, records, requests

Answer = TypeVar("Answer")
OTHER_POD, OTHER_CONTAINER = "e" * 64, "f" * 64


@dataclass
class World:
    """One pod and container of kubelet's, one of `crisp run`; the service is kubelet's."""

    pods: doubles.Pods = field(
        default_factory=lambda: doubles.Pods(
            held=[records.pod(), records.pod(id=PodId(OTHER_POD), realm="run")]
        )
    )
    containers: doubles.Containers = field(
        default_factory=lambda: doubles.Containers(
            held=[records.container(), records.container(id=ContainerId(OTHER_CONTAINER), realm="run")]
        )
    )
    images: doubles.Images = field(default_factory=lambda: doubles.Images(held=[records.image()]))
    records: doubles.Records = field(default_factory=doubles.Records)

    @property
    def service(self) -> RuntimeService:
        return RuntimeService(
            realm="kubelet",
            pods=self.pods,
            containers=self.containers,
            images=self.images,
            node=doubles.Node(),
            records=self.records,
            families=FAMILIES,
            streams=StreamingServer(address="127.0.0.1", port=10010, limits=Limits(idle=60.0, creation=30.0)),
        )


@pytest.fixture
def world() -> World:
    return World()


def answer(call: Coroutine[Any, Any, Answer]) -> Answer:
    return asyncio.run(call)


def test_a_pod_is_run_in_the_realm_of_the_socket(world: World) -> None:
    response = answer(world.service.run_pod_sandbox(requests.run_pod()))
    assert response == cri_pb2.RunPodSandboxResponse(pod_sandbox_id=requests.POD_ID)
    spec = pod_spec(requests.pod_config(), "config", handler="crun")
    assert world.pods.calls == [("run", "kubelet", spec)]


def test_a_container_is_created_with_both_configurations(world: World) -> None:
    response = answer(world.service.create_container(requests.create_container()))
    assert response == cri_pb2.CreateContainerResponse(container_id=requests.CONTAINER_ID)
    spec = container_spec(requests.container_config(), "config")
    of_pod = pod_spec(requests.pod_config(), "sandbox_config")
    assert world.containers.calls == [("create", "kubelet", requests.POD_ID, spec, of_pod)]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (cri_pb2.CreateContainerRequest(), "config: missing"),
        (
            cri_pb2.CreateContainerRequest(config=requests.container_config()),
            "sandbox_config: missing",
        ),
        (
            cri_pb2.CreateContainerRequest(
                config=requests.container_config(), sandbox_config=cri_pb2.PodSandboxConfig()
            ),
            "sandbox_config.metadata: missing",
        ),
    ],
)
def test_a_container_request_needs_both_configurations(
    world: World, request_: cri_pb2.CreateContainerRequest, error: str
) -> None:
    with pytest.raises(BadInput) as caught:
        answer(world.service.create_container(request_))
    assert str(caught.value) == error
    assert world.containers.calls == []


def test_a_pod_request_needs_a_configuration(world: World) -> None:
    with pytest.raises(BadInput, match=r"^config: missing$"):
        answer(world.service.run_pod_sandbox(cri_pb2.RunPodSandboxRequest()))


def test_the_other_verbs_get_realm_and_id(world: World) -> None:
    service = world.service
    answer(service.stop_pod_sandbox(cri_pb2.StopPodSandboxRequest(pod_sandbox_id="p")))
    answer(service.remove_pod_sandbox(cri_pb2.RemovePodSandboxRequest(pod_sandbox_id="p")))
    answer(service.start_container(cri_pb2.StartContainerRequest(container_id="c")))
    answer(service.stop_container(cri_pb2.StopContainerRequest(container_id="c", timeout=30)))
    answer(service.stop_container(cri_pb2.StopContainerRequest(container_id="c", timeout=-1)))
    answer(service.remove_container(cri_pb2.RemoveContainerRequest(container_id="c")))
    answer(service.reopen_container_log(cri_pb2.ReopenContainerLogRequest(container_id="c")))
    assert world.pods.calls == [("stop", "kubelet", "p"), ("remove", "kubelet", "p")]
    assert world.containers.calls == [
        ("start", "kubelet", "c"),
        ("stop", "kubelet", "c", 30.0),
        ("stop", "kubelet", "c", 0.0),
        ("remove", "kubelet", "c"),
        ("reopen_log", "kubelet", "c"),
    ]


def test_lists_and_status_show_only_the_realm(world: World) -> None:
    service = world.service
    pods = cri_pb2.ListPodSandboxResponse.FromString(
        answer(service.list_pod_sandbox(cri_pb2.ListPodSandboxRequest()))
    )
    containers = cri_pb2.ListContainersResponse.FromString(
        answer(service.list_containers(cri_pb2.ListContainersRequest()))
    )
    assert [item.id for item in pods.items] == [requests.POD_ID]
    assert [item.id for item in containers.containers] == [requests.CONTAINER_ID]
    with pytest.raises(Absent):
        answer(service.pod_sandbox_status(cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=OTHER_POD)))
    with pytest.raises(Absent):
        answer(service.container_status(cri_pb2.ContainerStatusRequest(container_id=OTHER_CONTAINER)))
    with pytest.raises(Absent):
        answer(service.container_stats(cri_pb2.ContainerStatsRequest(container_id=OTHER_CONTAINER)))


@pytest.mark.parametrize("verbose", [False, True])
def test_details_are_told_only_when_asked_for(world: World, verbose: bool) -> None:
    service = world.service
    pod = answer(
        service.pod_sandbox_status(
            cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=requests.POD_ID, verbose=verbose)
        )
    )
    container = answer(
        service.container_status(
            cri_pb2.ContainerStatusRequest(container_id=requests.CONTAINER_ID, verbose=verbose)
        )
    )
    node = answer(service.status(cri_pb2.StatusRequest(verbose=verbose)))
    assert pod.status.id == requests.POD_ID
    assert container.status.image.image == "docker.io/library/nginx:1"
    told = [{key: json.loads(text) for key, text in one.info.items()} for one in (pod, container, node)]
    expected: list[dict[str, Any]] = [
        {"info": {"pid": 1, "of": requests.POD_ID}},
        {"info": {"pid": 2, "of": requests.CONTAINER_ID}},
        {"config": {"stateDir": "/run/crisp"}},
    ]
    assert told == (expected if verbose else [{}, {}, {}])


@pytest.mark.parametrize(("timeout", "limit"), [(0, None), (-3, None), (7, 7.0)])
def test_a_command_is_run_with_its_limit(world: World, timeout: int, limit: float | None) -> None:
    request = cri_pb2.ExecSyncRequest(container_id="c", cmd=["sh", "-c", "a b"], timeout=timeout)
    response = answer(world.service.exec_sync(request))
    assert response == cri_pb2.ExecSyncResponse(stdout=b"out", stderr=b"err", exit_code=3)
    assert world.containers.calls == [("exec_sync", "kubelet", "c", ("sh", "-c", "a b"), limit)]


@pytest.mark.parametrize(
    ("command", "error"), [([], "cmd: empty"), (["a", "b\0"], "cmd[1]: contains a NUL byte")]
)
def test_a_command_that_cannot_be_executed_is_refused(world: World, command: list[str], error: str) -> None:
    with pytest.raises(BadInput) as caught:
        answer(world.service.exec_sync(cri_pb2.ExecSyncRequest(container_id="c", cmd=command)))
    assert str(caught.value) == error
    assert world.containers.calls == []


def test_two_full_streams_fit_into_one_message(world: World) -> None:
    world.containers.result = replace(
        world.containers.result, stdout=b"o" * (16 << 20), stderr=b"e" * (16 << 20)
    )
    response = answer(world.service.exec_sync(cri_pb2.ExecSyncRequest(container_id="c", cmd=["x"])))
    assert response.ByteSize() <= 16 << 20
    assert len(response.stdout) == len(response.stderr)


@pytest.mark.parametrize(
    ("out", "err", "expected"),
    [(3, 3, (3, 3)), (20, 3, (7, 3)), (3, 20, (3, 7)), (20, 20, (5, 5)), (6, 5, (5, 5)), (10, 0, (10, 0))],
)
def test_a_short_stream_leaves_its_room_to_the_other(out: int, err: int, expected: tuple[int, int]) -> None:
    found = fit(b"o" * out, b"e" * err, limit=10)
    assert (len(found[0]), len(found[1])) == expected


def test_usage_is_read_of_running_containers_only(world: World) -> None:
    world.containers.held.append(
        records.container(id=ContainerId("0" * 64), state=ContainerState.EXITED, finished_at=1)
    )
    response = answer(world.service.list_container_stats(cri_pb2.ListContainerStatsRequest()))
    assert [one.attributes.id for one in response.stats] == [requests.CONTAINER_ID]
    assert world.containers.calls == [("all_stats", "kubelet", (requests.CONTAINER_ID,))]
    one = answer(
        world.service.container_stats(cri_pb2.ContainerStatsRequest(container_id=requests.CONTAINER_ID))
    )
    assert one.stats == response.stats[0]


def test_version_and_runtime_config_are_answered_from_the_node(world: World) -> None:
    assert answer(world.service.version(cri_pb2.VersionRequest())).runtime_version == "1.2.3"
    found = answer(world.service.runtime_config(cri_pb2.RuntimeConfigRequest()))
    assert found.linux.cgroup_driver == cri_pb2.SYSTEMD
