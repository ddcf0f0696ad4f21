"""Pods with a user namespace of their own: owners, processes and files, as the kernel tells of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client
from tests.daemon import Daemon, running, warm_up
from tests.images import catalogue
from tests.images.registry import Registry
from tests.parts.build import program

FIRST = 131072  # what the pod's root is on the host
LENGTH = 65536
NEW = "runc-new"
NS_GET_USERNS = 0xB701  # linux/nsfs.h: the user namespace that owns a namespace


def userns(first: int = FIRST, length: int = LENGTH) -> Any:
    mapping = [cri_pb2.IDMapping(host_id=first, container_id=0, length=length)]
    return cri_pb2.UserNamespace(mode=cri_pb2.POD, uids=mapping, gids=mapping)


def overrides(form: str) -> dict[str, dict[str, str]]:
    return {
        f"handlers.{NEW}": {"binary": str(program("runc", "runc"))},
        "images": {"layer_form": form},
    }


@pytest.fixture(scope="module", params=["auto", "directory"])
def shifting(
    request: pytest.FixtureRequest, prepared_machine: None, image_registry: Registry
) -> Iterator[Daemon]:
    """A daemon with a handler that has user namespaces, for each form in which layers are kept."""
    with running(image_registry, overrides=overrides(request.param), shared=True) as daemon:
        warm_up(daemon)
        Client(daemon).pull()
        yield daemon


@pytest.fixture
def client(shifting: Daemon) -> Iterator[Client]:
    with kubelet(shifting) as made:
        yield made


@contextlib.contextmanager
def kubelet(daemon: Daemon) -> Iterator[Client]:
    """A client with busybox there; afterwards no pod is left, and no root file system is shown."""
    made = Client(daemon)
    made.pull()
    yield made
    daemon.remove_all_pods()
    daemon.remove_pod_groups()
    assert os.listdir(daemon.directory / "run-roots") == []  # noqa: PTH208 - names only


def refusal(call: Any, *words: Any, **named: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*words, **named)
    error: Any = caught.value
    return error.code().name, error.details()


def owner_of(namespace: str) -> int:
    """The inode of the user namespace that owns the namespace at that path."""
    with open(namespace, "rb") as file:  # noqa: PTH123 - a descriptor for ioctl
        owner = fcntl.ioctl(file, NS_GET_USERNS)
    try:
        return os.fstat(owner).st_ino
    finally:
        os.close(owner)


def test_processes_and_files_belong_to_the_pods_own_users(client: Client) -> None:
    pod = client.run_pod(
        handler=NEW, user_namespace=userns(), sysctls={"net.ipv4.ip_unprivileged_port_start": "80"}
    )
    container = client.run(pod, command=("sh", "-c", "echo done; exec sleep 1000"))
    client.exec(container, "sh", "-c", "touch /made /dev/shm/made && echo 10.0.0.9 more >>/etc/hosts")
    pid = client.pid(container)
    own = Path(f"/proc/{pid}/ns/user").stat().st_ino

    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(FIRST), str(LENGTH)]
    assert Path(f"/proc/{pid}/gid_map").read_text().split() == ["0", str(FIRST), str(LENGTH)]
    assert {kind: owner_of(f"/proc/{pid}/ns/{kind}") for kind in ("net", "ipc", "uts")} == dict.fromkeys(
        ("net", "ipc", "uts"), own
    )
    assert own != Path("/proc/self/ns/user").stat().st_ino
    assert Path(f"/proc/{pid}").stat().st_uid == FIRST
    root = Path(f"/proc/{pid}/root")
    # a file of the image, one that the container made, one that it made in memory, its root
    for path in ("bin/busybox", "made", "dev/shm/made", "etc/hosts", ""):
        seen = (root / path).stat()
        assert (path, seen.st_uid, seen.st_gid) == (path, FIRST, FIRST)
    upper = client.daemon.state_dir / "containers" / container / "upper"
    assert {path: (upper / path).stat().st_uid for path in ("", "made")} == {"": FIRST, "made": FIRST}
    assert client.exec(container, "stat", "-c", "%u:%g", "/bin/busybox", "/made", "/") == "0:0\n" * 3
    assert client.exec(container, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start") == "80\n"
    request = cri_pb2.ContainerStatsRequest(container_id=container)
    assert client.call("ContainerStats", request).stats.memory.working_set_bytes.value > 0
    status = client.call("PodSandboxStatus", cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod)).status
    assert status.linux.namespaces.options.userns_options == userns()
    client.stop(container)  # then the log is whole
    log = client.daemon.directory / "logs" / client.pods[pod].metadata.name / "main.log"
    assert log.read_text().endswith("stdout F done\n")


def test_another_user_of_the_image_is_shifted_too(client: Client) -> None:
    pod = client.run_pod(handler=NEW, user_namespace=userns())
    uid = cri_pb2.Int64Value(value=1000)
    container = client.run_up(pod, security={"run_as_user": uid, "supplemental_groups": [4000]})
    status = Path(f"/proc/{client.pid(container)}/status").read_text()
    lines = {line.partition(":")[0]: line.split()[1:] for line in status.splitlines()}

    assert lines["Uid"] == [str(FIRST + 1000)] * 4
    assert str(FIRST + 4000) in lines["Groups"]
    assert client.exec(container, "id", "-u") == "1000\n"


def test_a_restart_and_a_crash_of_the_daemon_change_nothing(
    prepared_machine: None, image_registry: Registry
) -> None:
    with running(image_registry, overrides=overrides("auto")) as daemon, kubelet(daemon) as client:
        pod = client.run_pod(handler=NEW, user_namespace=userns())
        lasting, made = client.run(pod, "one"), client.create(pod, "two")
        pid = client.pid(lasting)
        daemon.restart()
        client.connect()
        assert client.pid(lasting) == pid
        assert client.exec(lasting, "id", "-u") == "0\n"
        daemon.kill()
        daemon.start()
        client.connect()
        assert client.pid(lasting) == pid
        client.start(made)
        assert client.exec(made, "cat", "/proc/self/uid_map").split() == ["0", str(FIRST), str(LENGTH)]
        later = client.run(pod, "three")
        assert Path(f"/proc/{client.pid(later)}/root/bin/busybox").stat().st_uid == FIRST
        client.stop(lasting)
        client.remove(lasting)
        client.remove_pod(pod)


def test_a_shared_pid_namespace_has_its_first_process_in_there_too(client: Client) -> None:
    pod = client.run_pod(handler=NEW, user_namespace=userns(), pid=cri_pb2.POD)
    container = client.run(pod)

    assert client.exec(container, "cat", "/proc/1/comm") == "catatonit\n"
    assert Path(f"/proc/{client.pid(pod)}/uid_map").read_text().split() == ["0", str(FIRST), str(LENGTH)]


def test_volumes_and_mounted_images_have_the_shifted_owners(client: Client, tmp_path: Path) -> None:
    client.pull(catalogue.VOLUMES)
    (tmp_path / "file").write_text("x")
    mapping = [cri_pb2.IDMapping(host_id=FIRST, container_id=0, length=LENGTH)]
    mounts = (
        cri_pb2.Mount(
            container_path="/model", readonly=True, image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX)
        ),
        cri_pb2.Mount(
            container_path="/host", host_path=str(tmp_path), uidMappings=mapping, gidMappings=mapping
        ),
    )
    pod = client.run_pod(handler=NEW, user_namespace=userns())
    container = client.run(pod, image=catalogue.VOLUMES, mounts=mounts)
    pid = client.pid(container)
    storage = client.daemon.state_dir / "containers" / container / "volumes"

    owners = {path.lstat().st_uid for path in storage.rglob("*")}
    assert owners and all(FIRST <= uid < FIRST + LENGTH for uid in owners)
    assert Path(f"/proc/{pid}/root/model/bin/busybox").stat().st_uid == FIRST
    # The host's own directory keeps the host's owners, whoever writes there.
    client.exec(container, "sh", "-c", "touch /host/made && test $(stat -c %u /host/file) = 0")
    assert (tmp_path / "made").stat().st_uid == 0


def test_what_cannot_be_is_refused_with_the_reason(client: Client) -> None:
    field = "config.linux.security_context.namespace_options.userns_options"
    code, words = refusal(client.run_pod, handler="runc", user_namespace=userns())
    assert (code, field in words, "'runc' has no user namespaces" in words) == ("UNIMPLEMENTED", True, True)
    pod = client.run_pod(handler=NEW, user_namespace=userns(length=1000))
    code, words = refusal(client.create, pod, security={"run_as_user": cri_pb2.Int64Value(value=1000)})
    assert (code, "run_as_user: 1000 is not mapped" in words) == ("INVALID_ARGUMENT", True)
    code, words = refusal(
        client.create, pod, security={"namespace_options": cri_pb2.NamespaceOption(pid=cri_pb2.CONTAINER)}
    )
    assert (code, "userns_options: differ" in words) == ("INVALID_ARGUMENT", True)


def test_the_status_promises_it_for_the_handlers_that_have_it(client: Client) -> None:
    status = client.call("Status", cri_pb2.StatusRequest())
    promised = {entry.name: entry.features.user_namespaces for entry in status.runtime_handlers}

    assert promised == {"": False, "runc": False, "crun": False, NEW: True}
    assert status.features.user_namespaces_host_network


def test_on_the_node_s_network_it_sees_the_interfaces_and_can_change_none(client: Client) -> None:
    pod = client.run_pod(handler=NEW, user_namespace=userns(), host_network=True, pid=cri_pb2.POD)
    full = {"capabilities": cri_pb2.Capability(add_capabilities=["NET_ADMIN", "SYS_ADMIN"])}
    container = client.run(pod, security=full)
    pid = client.pid(container)

    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(FIRST), str(LENGTH)]
    for kind in ("net", "uts"):
        assert Path(f"/proc/{pid}/ns/{kind}").stat().st_ino == Path(f"/proc/self/ns/{kind}").stat().st_ino
    assert owner_of(f"/proc/{pid}/ns/ipc") == Path(f"/proc/{pid}/ns/user").stat().st_ino
    here = sorted(entry.name for entry in Path("/sys/class/net").iterdir())
    assert client.exec(container, "ls", "/sys/class/net").split() == here
    places = (Path("/sys/class/net/lo/mtu"), Path("/proc/sys/kernel/hostname"))
    before = [place.read_text() for place in places]
    tries = (
        "ip link set lo mtu 60000",
        "hostname other",
        "mount -t sysfs sysfs /tmp",
        "echo 1 >/sys/kernel/mm/ksm/run",
    )
    script = "; ".join(f"{{ {words}; }} 2>/dev/null || echo no" for words in tries)
    assert client.exec(container, "sh", "-c", script) == "no\n" * len(tries)
    assert [place.read_text() for place in places] == before
    client.stop_pod(pod)
    status = client.call("PodSandboxStatus", cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod)).status
    assert (status.state, status.network.ip) == (cri_pb2.SANDBOX_NOTREADY, "")
