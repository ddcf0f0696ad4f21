"""Records become whole answers."""

from __future__ import annotations

import json

import pytest

from api.ports import Condition, HandlerStatus, NodeStatus
from api.proto import cri_pb2
from api.translate import containers, images, node, pods, resources, signals, usage
from oci.errors import BadInput
from oci.features import HandlerFeatures
from oci.image import ImageConfig
from oci.workload import ContainerId, ImageId
from shim.records import ContainerState, ImageRecord, PodState
from shim.stats import (
    ContainerUsage,
    CpuUse,
    FilesystemUse,
    IoUse,
    MemoryUse,
    Pressure,
    PressureLine,
    SwapUse,
)
from tests.unit.api import records, requests

POD_METADATA = cri_pb2.PodSandboxMetadata(name="web", namespace="shop", uid="u-1", attempt=2)
MODEL_ID = "sha256:" + "99" * 32


def find_image(name: str) -> ImageRecord | None:
    known = {records.IMAGE_ID: records.image(), "models/llm:1": records.image(id=MODEL_ID)}
    return known.get(name)


def test_a_pod_is_answered_as_it_was_asked_for() -> None:
    config = requests.pod_config()
    assert pods.status(records.pod()) == cri_pb2.PodSandboxStatus(
        id=requests.POD_ID,
        metadata=POD_METADATA,
        state=cri_pb2.SANDBOX_READY,
        created_at=11,
        network=cri_pb2.PodSandboxNetworkStatus(ip="10.1.0.5", additional_ips=[cri_pb2.PodIP(ip="fd00::5")]),
        linux=cri_pb2.LinuxPodSandboxStatus(
            namespaces=cri_pb2.Namespace(options=config.linux.security_context.namespace_options)
        ),
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler="crun",
    )
    assert pods.listed(records.pod()) == cri_pb2.PodSandbox(
        id=requests.POD_ID,
        metadata=POD_METADATA,
        state=cri_pb2.SANDBOX_READY,
        created_at=11,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler="crun",
    )


@pytest.mark.parametrize("state", [PodState.STOPPING, PodState.NOTREADY, PodState.REMOVING])
def test_a_pod_that_is_not_ready_has_no_address(state: PodState) -> None:
    status = pods.status(records.pod(state=state))
    assert status.state == cri_pb2.SANDBOX_NOTREADY
    assert status.network == cri_pb2.PodSandboxNetworkStatus()


def test_a_pod_on_the_nodes_network_has_an_empty_network_message() -> None:
    status = pods.status(records.pod(network=None))
    assert status.HasField("network")
    assert status.network.ip == ""


def test_a_container_is_answered_as_it_was_asked_for_and_as_it_is() -> None:
    config = requests.container_config()
    mounts = [cri_pb2.Mount.FromString(mount.SerializeToString()) for mount in config.mounts]
    mounts[2].image.image_ref = MODEL_ID
    image = cri_pb2.ImageSpec.FromString(config.image.SerializeToString())
    image.image = "docker.io/library/nginx:1"
    record = records.container(image_mounts=(ImageId(""), ImageId(""), ImageId(MODEL_ID)))
    assert containers.status(record, find_image) == cri_pb2.ContainerStatus(
        id=requests.CONTAINER_ID,
        metadata=config.metadata,
        state=cri_pb2.CONTAINER_RUNNING,
        created_at=21,
        started_at=22,
        image=image,
        image_ref=records.DIGEST,
        labels=config.labels,
        annotations=config.annotations,
        mounts=mounts,
        log_path="/var/log/pods/shop_web_u-1/nginx/3.log",
        resources=cri_pb2.ContainerResources(linux=config.linux.resources),
        image_id=records.IMAGE_ID,
        user=cri_pb2.ContainerUser(linux=cri_pb2.LinuxContainerUser(uid=33, gid=33, supplemental_groups=[5])),
        stop_signal=cri_pb2.SIGNAL_SIGQUIT,
    )
    assert containers.listed(records.container()) == cri_pb2.Container(
        id=requests.CONTAINER_ID,
        pod_sandbox_id=requests.POD_ID,
        metadata=config.metadata,
        image=config.image,
        image_ref=records.DIGEST,
        state=cri_pb2.CONTAINER_RUNNING,
        created_at=21,
        labels=config.labels,
        annotations=config.annotations,
        image_id=records.IMAGE_ID,
    )


def test_an_ended_container_says_how() -> None:
    record = records.container(
        state=ContainerState.EXITED, finished_at=23, exit_code=137, reason="OOMKilled", message="memory"
    )
    status = containers.status(record, find_image)
    assert (status.state, status.finished_at, status.exit_code, status.reason, status.message) == (
        cri_pb2.CONTAINER_EXITED,
        23,
        137,
        "OOMKilled",
        "memory",
    )


def test_without_a_known_image_the_request_and_the_id_stand_in() -> None:
    status = containers.status(records.container(image_ref=""), lambda _name: None)
    assert (status.image.image, status.image_ref) == (records.IMAGE_ID, records.IMAGE_ID)


REMOVING = [
    ({"started_at": 0}, cri_pb2.CONTAINER_CREATED),
    ({"started_at": 5}, cri_pb2.CONTAINER_UNKNOWN),
    ({"started_at": 5, "finished_at": 6}, cri_pb2.CONTAINER_EXITED),
    ({"started_at": 0, "finished_at": 6}, cri_pb2.CONTAINER_EXITED),
]


@pytest.mark.parametrize(("times", "state"), REMOVING)
def test_a_container_that_is_removed_is_shown_as_what_it_was(times: dict[str, int], state: int) -> None:
    record = records.container(state=ContainerState.REMOVING, **times)
    assert containers.container_state(record) == state


def test_every_state_of_a_container_has_a_word_of_the_interface() -> None:
    shown = {state: containers.container_state(records.container(state=state)) for state in ContainerState}
    assert shown == {
        ContainerState.CREATING: cri_pb2.CONTAINER_CREATED,
        ContainerState.CREATED: cri_pb2.CONTAINER_CREATED,
        ContainerState.STARTING: cri_pb2.CONTAINER_CREATED,
        ContainerState.RUNNING: cri_pb2.CONTAINER_RUNNING,
        ContainerState.EXITED: cri_pb2.CONTAINER_EXITED,
        ContainerState.UNKNOWN: cri_pb2.CONTAINER_UNKNOWN,
        ContainerState.REMOVING: cri_pb2.CONTAINER_UNKNOWN,
    }


def test_resources_come_back_as_they_were_asked_for() -> None:
    wire = requests.resources()
    assert resources.to_wire(resources.from_wire(wire, "linux.resources")) == wire


def test_every_signal_of_the_interface_comes_back_as_itself() -> None:
    for number in cri_pb2.Signal.values():
        if number != cri_pb2.SIGNAL_RUNTIME_DEFAULT:
            assert signals.to_wire(signals.to_name(number, "stop_signal")) == number


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("15", cri_pb2.SIGNAL_SIGTERM),
        ("9", cri_pb2.SIGNAL_SIGKILL),
        ("usr1", cri_pb2.SIGNAL_SIGUSR1),
        ("SIGRTMIN+3", cri_pb2.SIGNAL_SIGRTMINPLUS3),
        ("SIGRTMAX-1", cri_pb2.SIGNAL_SIGRTMAXMINUS1),
        ("", cri_pb2.SIGNAL_SIGTERM),
        ("nonsense", cri_pb2.SIGNAL_SIGTERM),
        ("4000", cri_pb2.SIGNAL_SIGTERM),
    ],
)
def test_the_effective_stop_signal_is_never_the_default_of_the_enum(name: str, expected: int) -> None:
    assert signals.to_wire(name) == expected


USERS = [
    ("", None, ""),
    ("0", 0, ""),
    ("1002", 1002, ""),
    ("1003:1003", 1003, ""),
    ("www-data:web", None, "www-data"),
    ("9" * 30, None, "9" * 30),
    ("٣", None, "٣"),
]


@pytest.mark.parametrize(("user", "uid", "username"), USERS)
def test_the_user_of_an_image_is_a_number_or_a_name(user: str, uid: int | None, username: str) -> None:
    answer = images.image(records.image(config=ImageConfig(user=user)))
    assert (answer.uid.value if answer.HasField("uid") else None, answer.username) == (uid, username)


def test_an_image_is_answered_with_all_its_names() -> None:
    assert images.image(records.image(pinned=True, size=0)) == cri_pb2.Image(
        id=records.IMAGE_ID,
        repo_tags=["docker.io/library/nginx:1"],
        repo_digests=[records.DIGEST],
        size=1,
        username="www-data",
        spec=cri_pb2.ImageSpec(image=records.IMAGE_ID),
        pinned=True,
    )


def test_the_verbose_answer_holds_the_image_specification() -> None:
    found = json.loads(images.details(records.image()))
    assert found["imageSpec"]["config"]["User"] == "www-data:web"
    assert found["imageSpec"]["rootfs"] == {"type": "layers", "diff_ids": ["sha256:" + "34" * 32]}


def test_an_image_name_is_needed() -> None:
    with pytest.raises(BadInput, match=r"^image\.image: empty$"):
        images.reference(cri_pb2.ImageSpec(), "image")


def test_usage_is_answered_with_every_number_that_was_read() -> None:
    line = PressureLine(total=5, avg10=1.5, avg60=2.5, avg300=3.5)
    psi = cri_pb2.PsiStats(
        Full=cri_pb2.PsiData(Total=5, Avg10=1.5, Avg60=2.5, Avg300=3.5),
        Some=cri_pb2.PsiData(Total=5, Avg10=1.5, Avg60=2.5, Avg300=3.5),
    )
    pressure = Pressure(full=line, some=line)
    read = ContainerUsage(
        id=ContainerId(requests.CONTAINER_ID),
        cpu=CpuUse(timestamp=1, usage_core_nano_seconds=2, usage_nano_cores=0, pressure=pressure),
        memory=MemoryUse(
            timestamp=3,
            working_set=4,
            available=5,
            usage=6,
            rss=7,
            page_faults=8,
            major_page_faults=9,
            pressure=pressure,
        ),
        swap=SwapUse(timestamp=10, available=11, usage=12),
        io=IoUse(timestamp=13, pressure=pressure),
        writable_layer=FilesystemUse(timestamp=14, mountpoint="/var", used_bytes=15, inodes_used=16),
    )

    def value(number: int) -> cri_pb2.UInt64Value:
        return cri_pb2.UInt64Value(value=number)

    config = requests.container_config()
    assert usage.container_stats(records.container(), read) == cri_pb2.ContainerStats(
        attributes=cri_pb2.ContainerAttributes(
            id=requests.CONTAINER_ID,
            metadata=config.metadata,
            labels=config.labels,
            annotations=config.annotations,
        ),
        cpu=cri_pb2.CpuUsage(
            timestamp=1, usage_core_nano_seconds=value(2), usage_nano_cores=value(0), psi=psi
        ),
        memory=cri_pb2.MemoryUsage(
            timestamp=3,
            working_set_bytes=value(4),
            available_bytes=value(5),
            usage_bytes=value(6),
            rss_bytes=value(7),
            page_faults=value(8),
            major_page_faults=value(9),
            psi=psi,
        ),
        swap=cri_pb2.SwapUsage(timestamp=10, swap_available_bytes=value(11), swap_usage_bytes=value(12)),
        io=cri_pb2.IoUsage(timestamp=13, psi=psi),
        writable_layer=cri_pb2.FilesystemUsage(
            timestamp=14,
            fs_id=cri_pb2.FilesystemIdentifier(mountpoint="/var"),
            used_bytes=value(15),
            inodes_used=value(16),
        ),
    )


def test_what_could_not_be_read_is_absent_and_not_zero() -> None:
    read = ContainerUsage(id=ContainerId(requests.CONTAINER_ID), cpu=CpuUse(timestamp=1))
    stats = usage.container_stats(records.container(), read)
    assert [field.name for field, _ in stats.ListFields()] == ["attributes", "cpu"]
    assert [field.name for field, _ in stats.cpu.ListFields()] == ["timestamp"]


def test_the_default_handler_is_shown_under_its_name_and_under_none() -> None:
    features = HandlerFeatures(recursive_read_only_mounts=True)
    status = NodeStatus(
        conditions=(
            Condition(type="RuntimeReady", status=True),
            Condition(type="NetworkReady", status=False, reason="NetworkPluginNotReady", message="no file"),
        ),
        handlers=(
            HandlerStatus(name="runc", features=features),
            HandlerStatus(name="crun", features=HandlerFeatures()),
        ),
        default_handler="runc",
    )
    rro = cri_pb2.RuntimeHandlerFeatures(recursive_read_only_mounts=True)
    none = cri_pb2.RuntimeHandlerFeatures()
    assert node.status(status, {"config": {"stateDir": "/var/lib/crisp"}}) == cri_pb2.StatusResponse(
        status=cri_pb2.RuntimeStatus(
            conditions=[
                cri_pb2.RuntimeCondition(type="RuntimeReady", status=True),
                cri_pb2.RuntimeCondition(
                    type="NetworkReady", reason="NetworkPluginNotReady", message="no file"
                ),
            ]
        ),
        info={"config": '{"stateDir": "/var/lib/crisp"}'},
        runtime_handlers=[
            cri_pb2.RuntimeHandler(name="runc", features=rro),
            cri_pb2.RuntimeHandler(name="crun", features=none),
            cri_pb2.RuntimeHandler(name="", features=rro),
        ],
        features=cri_pb2.RuntimeFeatures(supplemental_groups_policy=True),
    )


def test_the_version_holds_the_four_words_that_kubelet_demands() -> None:
    assert node.version("0.1.0") == cri_pb2.VersionResponse(
        version="0.1.0", runtime_name="crisp", runtime_version="0.1.0", runtime_api_version="v1"
    )


def test_the_cgroup_driver_is_always_said() -> None:
    for systemd, driver in ((True, cri_pb2.SYSTEMD), (False, cri_pb2.CGROUPFS)):
        answer = node.runtime_config(systemd_cgroups=systemd)
        assert answer.HasField("linux")
        assert answer.linux.cgroup_driver == driver
