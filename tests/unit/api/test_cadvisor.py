"""What kubelet's cAdvisor is told in CRI-O's words."""

from __future__ import annotations

from api.translate import cadvisor
from oci.cni import NetworkResult
from oci.workload import (
    ContainerId,
    ContainerMetadata,
    ContainerSpec,
    ImageId,
    ImageSpec,
    PodId,
    PodMetadata,
    PodSpec,
)
from shim.records import ContainerRecord, ContainerState, PodRecord, PodState, ProcessRef

POD = PodRecord(
    id=PodId("a" * 64),
    realm="kubelet",
    spec=PodSpec(
        metadata=PodMetadata(name="web", namespace="shop", uid="u1", attempt=2),
        labels={"io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "shop"},
        annotations={"of": "pod"},
    ),
    state=PodState.READY,
    created_at=5,
    handler="runc",
    network=NetworkResult(addresses=("10.0.0.7", "fd00::7")),
)
CONTAINER = ContainerRecord(
    id=ContainerId("b" * 64),
    pod_id=POD.id,
    realm="kubelet",
    spec=ContainerSpec(
        metadata=ContainerMetadata(name="main", attempt=3),
        image=ImageSpec(image="sha256:0"),
        labels={"io.kubernetes.container.name": "main"},
        annotations={"of": "container"},
    ),
    state=ContainerState.RUNNING,
    created_at=6,
    handler="runc",
    image_id=ImageId("sha256:0"),
    log_path="/var/log/pods/x/main/3.log",
    process=ProcessRef(pid=77, start_time=1),
)


def test_the_node_is_described_by_its_driver_and_where_it_keeps_things() -> None:
    assert cadvisor.info(systemd_cgroups=True, storage_root="/var/lib/crisp") == {
        "storage_driver": "overlay",
        "storage_root": "/var/lib/crisp",
        "storage_image": "",
        "cgroup_driver": "systemd",
    }
    assert cadvisor.info(systemd_cgroups=False, storage_root="/x")["cgroup_driver"] == "cgroupfs"


def test_a_container_is_told_with_its_process_labels_and_its_pods_addresses() -> None:
    assert cadvisor.container(CONTAINER, POD, image="nginx:1", root="/var/lib/crisp/c") == {
        "name": "k8s_main_web_shop_u1_3",
        "pid": 77,
        "image": "nginx:1",
        "created_time": 6,
        "labels": {"io.kubernetes.container.name": "main"},
        "annotations": {"of": "container"},
        "log_path": "/var/log/pods/x/main/3.log",
        "root": "/var/lib/crisp/c",
        "ip_address": "10.0.0.7",
        "ip_addresses": ["10.0.0.7", "fd00::7"],
    }


def test_a_pod_is_told_as_the_sandbox_that_cadvisor_looks_for() -> None:
    told = cadvisor.sandbox(POD, pid=77)
    assert (told["name"], told["pid"], told["labels"]["io.kubernetes.container.name"]) == (
        "k8s_POD_web_shop_u1_2", 77, "POD",
    )  # fmt: skip
    assert told["labels"]["io.kubernetes.pod.name"] == "web"
