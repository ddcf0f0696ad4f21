"""What a container finds at its image's VOLUMEs and at mounted images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client
from tests.daemon import Daemon
from tests.images import catalogue

NOBODY = "sha256:" + "0" * 64


def image_mount(path: str = "/model", name: str = catalogue.VOLUMES, sub_path: str = "", **other: Any) -> Any:
    image = cri_pb2.ImageSpec(image=name)
    return cri_pb2.Mount(container_path=path, readonly=True, image=image, image_sub_path=sub_path, **other)


def host_mounts(pod: str) -> list[str]:
    """The daemon's mounts of images in that pod's directory."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split(" ")[4] for line in lines]
    return [point for point in points if f"/pods/{pod}/images/" in point]


# VOLUMEs


def test_volumes_begin_as_the_image_has_them_and_go_with_the_container(client: Client) -> None:
    client.pull(catalogue.VOLUMES)
    pod = client.run_pod()
    container = client.run(pod, image=catalogue.VOLUMES, readonly_rootfs=True)
    storage = client.daemon.state_dir / "containers" / container / "volumes"

    assert client.exec(container, "stat", "-c", "%n %a %u:%g %h", "/data", "/data/file", "/data/same") == (
        "/data 750 33:7 3\n/data/file 640 33:33 2\n/data/same 640 33:33 2\n"
    )
    assert client.exec(container, "cat", "/data/file") == "from the image\n"
    assert client.exec(container, "readlink", "/data/away") == "../../../../../../etc/apt\n"
    assert client.exec(container, "stat", "-c", "%a", "/data/sub/empty") == "1777\n"
    # Only the volumes can be written to, each container has its own, and the layer does not grow.
    client.exec(container, "sh", "-c", "echo mine >/data/file; echo x >/fresh/deep/x")
    other = client.run(pod, "other", image=catalogue.VOLUMES)
    assert client.exec(other, "cat", "/data/file") == "from the image\n"
    assert client.exec(other, "ls", "-A", "/fresh/deep") == ""
    assert not (storage.parent / "upper" / "data" / "file").exists()
    assert list(client.status(container).status.mounts) == []

    client.stop(container)
    client.remove(container)
    assert not storage.exists()


def test_a_volume_that_leads_out_of_the_image_shows_nothing_of_the_host(client: Client) -> None:
    assert os.listdir("/etc/apt"), "what the image's link aims at"  # noqa: PTH208 - names only
    client.pull(catalogue.VOLUMES)
    container = client.run(client.run_pod(), image=catalogue.VOLUMES)
    assert client.exec(container, "ls", "-A", "/leak/") == ""
    assert client.exec(container, "cat", "/plain") == "a file\n"


def test_a_mount_of_the_request_takes_the_volume_s_place(client: Client, tmp_path: Path) -> None:
    client.pull(catalogue.VOLUMES)
    (tmp_path / "given").write_text("by the request\n")
    mount = cri_pb2.Mount(container_path="/data", host_path=str(tmp_path), mount_options=["noexec", "nosuid"])
    container = client.run(client.run_pod(), image=catalogue.VOLUMES, mounts=(mount,))
    assert client.exec(container, "ls", "-A", "/data") == "given\n"
    options = client.exec(container, "sh", "-c", "grep ' /data ' /proc/mounts").split()[3].split(",")
    assert {"noexec", "nosuid"} <= set(options)


# Mounted images


def test_an_image_is_mounted_once_a_pod_read_only_executable_and_with_its_id(client: Client) -> None:
    id_ = client.pull(catalogue.VOLUMES)
    pod = client.run_pod()
    one = client.run(pod, "one", mounts=(image_mount(), image_mount("/sub", sub_path="data/sub")))
    two = client.run(pod, "two", mounts=(image_mount("/other"),))
    assert client.exec(one, "/model/data/tool") == "it runs\n"
    assert client.exec(one, "ls", "-A", "/sub") == "empty\n"
    assert client.exec(two, "cat", "/other/data/file") == "from the image\n"
    with pytest.raises(AssertionError, match="Read-only file system"):
        client.exec(two, "sh", "-c", "echo x >/other/data/file")
    assert len(host_mounts(pod)) == 1

    mounts = client.status(one).status.mounts
    assert [(mount.container_path, mount.image.image, mount.image.image_ref) for mount in mounts] == [
        ("/model", catalogue.VOLUMES, id_),
        ("/sub", catalogue.VOLUMES, id_),
    ]
    # Removed while it is mounted: the containers keep what they have.
    client.images.RemoveImage(
        cri_pb2.RemoveImageRequest(image=cri_pb2.ImageSpec(image=catalogue.VOLUMES)), timeout=60
    )
    assert client.exec(one, "cat", "/model/data/file") == "from the image\n"
    client.stop_pod(pod)
    assert host_mounts(pod) == []


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (
            image_mount(name="registry.k8s.io/none:1"),
            "config.mounts[0].image.image: 'registry.k8s.io/none:1'",
        ),
        (image_mount(sub_path="nowhere"), "config.mounts[0].image_sub_path: 'nowhere' is no directory"),
        (image_mount(sub_path="plain"), "config.mounts[0].image_sub_path: 'plain' is no directory"),
        (image_mount(sub_path="out/apt"), "config.mounts[0].image_sub_path: 'out/apt' is no directory"),
        (image_mount(sub_path="../x"), "config.mounts[0].image_sub_path: '../x' contains '..'"),
        (image_mount(host_path="/tmp"), "config.mounts[0].host_path: set together with image"),
    ],
    ids=["absent", "no such path", "a file", "out of the image", "dots", "host path too"],
)
def test_what_cannot_be_mounted_is_refused_in_kubelet_s_word_and_leaves_nothing(
    client: Client, mount: Any, words: str
) -> None:
    client.pull(catalogue.VOLUMES)
    pod = client.run_pod()
    with pytest.raises(grpc.RpcError) as error:
        client.create(pod, mounts=(mount,))
    assert error.value.code() == grpc.StatusCode.UNKNOWN
    assert error.value.details().startswith(f"ImageVolumeMountFailed: {words}")
    assert host_mounts(pod) == []
    assert list(client.call("ListContainers", cri_pb2.ListContainersRequest()).containers) == []
    container = client.run(pod, mounts=(image_mount(),))  # the same name can be used again
    assert client.exec(container, "cat", "/model/plain") == "a file\n"


def test_a_mounted_image_survives_the_daemon_and_goes_with_its_pod(daemon: Daemon) -> None:
    client = Client(daemon)
    client.pull()
    client.pull(catalogue.VOLUMES)
    pod = client.run_pod(cgroup_parent="")
    container = client.run(pod, mounts=(image_mount(),))
    daemon.kill()
    daemon.start()
    client = Client(daemon, pods=client.pods)
    assert client.exec(container, "cat", "/model/data/file") == "from the image\n"
    assert len(host_mounts(pod)) == 1
    client.remove_pod(pod)
    assert host_mounts(pod) == []
