"""Rules of docs/contract.md for pods, through the socket, held against the kernel where it has them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client, cgroup_file, cgroup_text, pids
from tests.images import catalogue

NOBODY = "f" * 64
READY, NOTREADY = cri_pb2.SANDBOX_READY, cri_pb2.SANDBOX_NOTREADY


def refused(client: Client, method: str, request: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        client.call(method, request)
    return error.value


def pods(client: Client, **wanted: Any) -> list[str]:
    state = wanted.pop("state", None)
    asked = cri_pb2.PodSandboxFilter(**wanted)
    if state is not None:
        asked.state.state = state
    request = cri_pb2.ListPodSandboxRequest(filter=asked)
    return sorted(item.id for item in client.call("ListPodSandbox", request).items)


def containers(client: Client, **wanted: Any) -> list[str]:
    state = wanted.pop("state", None)
    asked = cri_pb2.ContainerFilter(**wanted)
    if state is not None:
        asked.state.state = state
    request = cri_pb2.ListContainersRequest(filter=asked)
    return sorted(item.id for item in client.call("ListContainers", request).containers)


def pod_status(client: Client, pod: str, *, verbose: bool = False) -> Any:
    request = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=verbose)
    return client.call("PodSandboxStatus", request)


def run_pod(client: Client, config: cri_pb2.PodSandboxConfig, **wanted: Any) -> Any:
    request = cri_pb2.RunPodSandboxRequest(config=config, **wanted)
    id_ = client.call("RunPodSandbox", request).pod_sandbox_id
    client.pods[id_] = config
    return id_


def changed(client: Client, pod: str, name: str) -> cri_pb2.PodSandboxConfig:
    config = cri_pb2.PodSandboxConfig()
    config.CopyFrom(client.pods[pod])
    config.metadata.name = config.metadata.uid = name
    return config


def test_an_unknown_id_is_not_found_and_an_empty_one_is_refused(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    image = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="a"), image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX)
    )
    of = {"container_id": NOBODY}
    requests = {
        "PodSandboxStatus": cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=NOBODY),
        "PodSandboxStats": cri_pb2.PodSandboxStatsRequest(pod_sandbox_id=NOBODY),
        "PortForward": cri_pb2.PortForwardRequest(pod_sandbox_id=NOBODY),
        "CreateContainer": cri_pb2.CreateContainerRequest(
            pod_sandbox_id=NOBODY, config=image, sandbox_config=client.pods[pod]
        ),
        "StartContainer": cri_pb2.StartContainerRequest(**of),
        "ContainerStatus": cri_pb2.ContainerStatusRequest(**of),
        "ContainerStats": cri_pb2.ContainerStatsRequest(**of),
        "ReopenContainerLog": cri_pb2.ReopenContainerLogRequest(**of),
        "UpdateContainerResources": cri_pb2.UpdateContainerResourcesRequest(**of),
        "ExecSync": cri_pb2.ExecSyncRequest(**of, cmd=["true"]),
        "Exec": cri_pb2.ExecRequest(**of, cmd=["true"], stdout=True),
        "Attach": cri_pb2.AttachRequest(**of, stdout=True),
    }
    assert {
        name: refused(client, name, request).code() for name, request in requests.items()
    } == dict.fromkeys(requests, grpc.StatusCode.NOT_FOUND)
    empty = refused(client, "ContainerStatus", cri_pb2.ContainerStatusRequest())
    assert (empty.code(), empty.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "container_id: empty")


def test_only_two_calls_are_not_served_and_say_what_is_missing(client: Client) -> None:
    for method, request, words in (
        ("CheckpointPod", cri_pb2.CheckpointPodRequest(), "CheckpointContainer captures each"),
        ("RestorePod", cri_pb2.RestorePodRequest(), "no driver starts processes out of a checkpoint"),
    ):
        error = refused(client, method, request)
        assert (error.code(), words in error.details()) == (grpc.StatusCode.UNIMPLEMENTED, True)


def test_ids_may_be_shortened_as_long_as_they_mean_one(client: Client) -> None:
    all_of = [client.run_pod(host_network=True) for _ in range(17)]
    assert all(len(id_) == 64 and set(id_) <= set("0123456789abcdef") for id_ in all_of)
    assert len(set(all_of)) == 17
    assert pod_status(client, all_of[0][:40]).status.id == all_of[0]
    # Seventeen ids begin with sixteen digits: two of them share theirs.
    first = [id_[0] for id_ in all_of]
    shared = next(digit for digit in first if first.count(digit) > 1)
    error = refused(client, "PodSandboxStatus", cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=shared))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("pod_sandbox_id: ")


def test_filters_are_anded_and_a_state_counts_only_where_it_is_given(client: Client) -> None:
    one = client.run_pod(host_network=True, labels={"a": "1", "b": "2"})
    other = client.run_pod(host_network=True, labels={"a": "1"})
    running, made = client.run(one, "running", labels={"c": "3"}), client.create(one, "made")
    assert pods(client) == sorted([one, other])
    assert sorted(
        item.id for item in client.call("ListPodSandbox", cri_pb2.ListPodSandboxRequest()).items
    ) == sorted([one, other])
    assert pods(client, label_selector={"a": "1", "b": "2"}) == [one]
    assert pods(client, label_selector={"a": "1"}, id=other) == [other]
    assert pods(client, label_selector={"b": "x"}) == pods(client, id=NOBODY) == []
    assert pods(client, state=NOTREADY) == []
    client.stop_pod(other)
    assert (pods(client, state=READY), pods(client, state=NOTREADY)) == ([one], [other])  # READY is 0
    assert containers(client) == sorted([running, made])
    assert containers(client, state=cri_pb2.CONTAINER_CREATED) == [made]  # CREATED is 0
    assert containers(client, state=cri_pb2.CONTAINER_RUNNING, pod_sandbox_id=one[:20]) == [running]
    assert containers(client, pod_sandbox_id=other) == containers(client, id=NOBODY) == []
    assert containers(client, id=running[:30], label_selector={"c": "3"}) == [running]
    assert containers(client, id=running, label_selector={"c": "4"}) == []


def test_a_life_in_the_lists(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    assert pods(client) == [pod]
    container = client.create(pod)
    assert containers(client) == [container]
    client.remove(container)
    assert containers(client) == []
    client.remove_pod(pod)
    assert pods(client) == []


def test_a_name_is_taken_while_its_object_lives(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    again = cri_pb2.RunPodSandboxRequest(config=client.pods[pod])
    assert refused(client, "RunPodSandbox", again).code() is grpc.StatusCode.ALREADY_EXISTS
    container = client.create(pod)
    with pytest.raises(grpc.RpcError) as error:
        client.create(pod)
    assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS  # type: ignore[attr-defined]
    client.remove(container)
    client.create(pod)
    client.remove_pod(pod)
    run_pod(client, client.pods[pod])


def test_what_was_asked_for_comes_back(client: Client) -> None:
    pod = client.run_pod(labels={"a": "b"})
    mount = cri_pb2.Mount(container_path="/m", host_path=str(client.daemon.directory), readonly=True)
    container = client.run(pod, mounts=(mount,), labels={"c": "d"}, annotations={"e": "f"})
    status = pod_status(client, pod).status
    config = client.pods[pod]
    assert (status.metadata, dict(status.labels), status.state) == (config.metadata, {"a": "b"}, READY)
    assert status.linux.namespaces.options == config.linux.security_context.namespace_options
    assert status.network.ip.startswith(client.daemon.subnet.rpartition(".")[0])
    assert status.network.ip not in [one.ip for one in status.network.additional_ips]
    assert status.created_at > 0
    listed = client.call("ListPodSandbox", cri_pb2.ListPodSandboxRequest()).items[0]
    assert (listed.id, listed.metadata, listed.created_at, dict(listed.labels), listed.runtime_handler) == (
        pod, config.metadata, status.created_at, {"a": "b"}, "",
    )  # fmt: skip

    seen = client.status(container).status
    image = client.images.ImageStatus(
        cri_pb2.ImageStatusRequest(image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX))
    ).image
    assert (seen.image.image, seen.image_ref, seen.image_id) == (
        image.repo_tags[0], image.repo_digests[0], image.id,
    )  # fmt: skip
    assert list(seen.mounts) == [mount]
    assert (dict(seen.labels), dict(seen.annotations)) == ({"c": "d"}, {"e": "f"})
    assert (seen.user.linux.uid, seen.user.linux.gid) == (0, 0)
    assert seen.log_path == f"{config.log_directory}/main.log"
    entry = client.call("ListContainers", cri_pb2.ListContainersRequest()).containers[0]
    assert (entry.id, entry.pod_sandbox_id, entry.image_id, entry.image_ref, entry.state) == (
        container, pod, image.id, image.repo_digests[0], cri_pb2.CONTAINER_RUNNING,
    )  # fmt: skip
    assert (entry.metadata.name, entry.image.image, entry.created_at) == (
        "main", catalogue.BUSYBOX, seen.created_at,
    )  # fmt: skip


def test_details_are_json_and_only_when_asked_for(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    container = client.run(pod)
    assert dict(pod_status(client, pod).info) == dict(client.status(container).info) == {}
    assert json.loads(pod_status(client, pod, verbose=True).info["info"])["config"]["metadata"]["uid"]
    details = json.loads(client.status(container, verbose=True).info["info"])
    assert (details["sandboxID"], details["pid"]) == (pod, client.pid(container))
    assert details["runtimeSpec"]["process"]["args"] == ["sleep", "1000"]
    assert dict(client.call("Status", cri_pb2.StatusRequest()).info) == {}
    info = client.call("Status", cri_pb2.StatusRequest(verbose=True)).info
    assert json.loads(info["config"])["stateDir"] == str(client.daemon.run_dir)


def test_a_handler_is_listed_or_refused(client: Client) -> None:
    listed = [entry.name for entry in client.call("Status", cri_pb2.StatusRequest()).runtime_handlers]
    assert (sorted(listed), len(set(listed))) == (["", "crun", "runc", "runsc"][: len(listed)], len(listed))
    for name in listed:
        if name != "runsc":  # has tests of its own, and is slow to start
            client.remove_pod(client.run_pod(host_network=True, handler=name))
    with pytest.raises(grpc.RpcError) as error:
        client.run_pod(handler="none-such")
    assert "runtime_handler: " in error.value.details()  # type: ignore[attr-defined]
    assert pods(client) == []


def test_the_runtime_promises_groups_and_mount_options(client: Client) -> None:
    features = client.call("Status", cri_pb2.StatusRequest()).features
    assert (features.supplemental_groups_policy, features.mount_options) == (True, True)


def test_the_pod_s_files_are_in_its_containers(client: Client) -> None:
    config = changed(client, client.run_pod(host_network=True), "files")
    config.hostname = "made-up"
    config.linux.security_context.namespace_options.network = cri_pb2.POD
    config.dns_config.servers.append("10.9.8.7")
    config.dns_config.searches.extend(["a.b", "c.d"])
    container = client.run(run_pod(client, config))
    assert client.exec(container, "hostname") == "made-up\n"
    assert client.exec(container, "cat", "/etc/resolv.conf").split("\n")[:2] == [
        "search a.b c.d", "nameserver 10.9.8.7",
    ]  # fmt: skip
    assert client.exec(container, "cat", "/etc/hosts").startswith(Path("/etc/hosts").read_text().rstrip())
    point = next(
        line.split()
        for line in Path(f"/proc/{client.pid(container)}/mountinfo").read_text().splitlines()
        if line.split()[4] == "/dev/shm"
    )
    assert {"nosuid", "nodev", "noexec"} <= set(point[5].split(","))
    assert "size=65536k" in point[-1]
    assert os.stat(f"/proc/{client.pid(container)}/root/dev/shm").st_mode & 0o7777 == 0o1777  # noqa: PTH116


def test_a_pod_on_the_node_s_network_has_no_address(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    container = client.run(pod)
    assert pod_status(client, pod).status.network.ip == ""
    assert client.exec(container, "hostname").strip() == os.uname().nodename
    inside = Path(f"/proc/{client.pid(container)}/ns/net").readlink()
    assert inside == Path("/proc/self/ns/net").readlink()


def test_a_container_lies_below_its_pod_s_cgroup(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    container = client.run(pod)
    parent = client.pods[pod].linux.cgroup_parent
    group = cgroup_file(client.pid(container), "memory", "").resolve()
    assert str(group).endswith(f"{parent}/{container}")


def shared_pid(client: Client) -> tuple[str, int]:
    """A pod with one PID namespace, and its first process."""
    config = changed(client, client.run_pod(host_network=True), "shared")
    config.linux.security_context.namespace_options.pid = cri_pb2.POD
    pod = run_pod(client, config)
    (first,) = [pid for pid in pids() if pod in cgroup_text(pid)]
    return pod, first


def test_a_first_process_has_the_least_share(client: Client) -> None:
    _, first = shared_pid(client)
    assert cgroup_file(first, "cpu", "cpu.shares").read_text() == "2\n"


def test_a_pod_whose_first_process_dies_is_not_ready(client: Client) -> None:
    stream = client.runtime.GetContainerEvents(cri_pb2.GetEventsRequest())
    stream.initial_metadata()
    pod, first = shared_pid(client)
    os.kill(first, signal.SIGKILL)
    for event in stream:
        if (event.container_id, event.container_event_type) == (pod, cri_pb2.CONTAINER_STOPPED_EVENT):
            break
    stream.cancel()
    assert pod_status(client, pod).status.state == NOTREADY


def test_a_privileged_container_needs_a_privileged_pod(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    config = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="a"), image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX)
    )
    config.linux.security_context.privileged = True
    request = cri_pb2.CreateContainerRequest(
        pod_sandbox_id=pod, config=config, sandbox_config=client.pods[pod]
    )
    error = refused(client, "CreateContainer", request)
    assert error.details().startswith("config.linux.security_context.privileged: ")


def test_a_container_s_user_namespace_is_the_pod_s(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    config = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="a"), image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX)
    )
    options = config.linux.security_context.namespace_options.userns_options
    options.mode = cri_pb2.POD
    options.uids.add(host_id=100_000, container_id=0, length=65536)
    options.gids.add(host_id=100_000, container_id=0, length=65536)
    request = cri_pb2.CreateContainerRequest(
        pod_sandbox_id=pod, config=config, sandbox_config=client.pods[pod]
    )
    assert "userns_options" in refused(client, "CreateContainer", request).details()


def test_stopping_a_pod_ends_its_containers_and_keeps_them_listed(client: Client) -> None:
    pod = client.run_pod()
    container, ended = client.run(pod), client.run(pod, "ended", ("true",))
    pid = client.pid(container)
    client.stop_pod(pod)
    assert not Path(f"/proc/{pid}/exe").exists()
    status = pod_status(client, pod).status
    assert (status.state, status.network.ip) == (NOTREADY, "")
    assert containers(client, state=cri_pb2.CONTAINER_EXITED) == sorted([container, ended])
    assert client.status(container).status.exit_code == 137
    client.stop_pod(pod)
    client.remove(ended)
    client.remove_pod(pod)
    client.remove_pod(pod)
    client.stop_pod(pod)
    assert pods(client) == containers(client) == []


def test_nothing_is_made_in_a_stopped_pod(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    made = client.create(pod, "made")
    client.stop_pod(pod)
    wrong = grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.RpcError) as error:
        client.create(pod, "later")
    assert error.value.code() is wrong  # type: ignore[attr-defined]
    request = cri_pb2.PortForwardRequest(pod_sandbox_id=pod, port=[80])
    assert refused(client, "PortForward", request).code() is wrong
    start = cri_pb2.StartContainerRequest(container_id=made)
    assert refused(client, "StartContainer", start).code() is wrong
    status = client.status(made).status
    assert (status.state, status.reason, status.exit_code) == (cri_pb2.CONTAINER_EXITED, "StartError", 128)


def test_removing_a_running_pod_takes_all_but_its_logs(client: Client) -> None:
    pod = client.run_pod(host_network=True)
    container = client.run(pod)
    pid = client.pid(container)
    client.remove_pod(pod)
    assert not Path(f"/proc/{pid}/exe").exists()
    assert pods(client) == containers(client) == []
    for method, request in (
        ("PodSandboxStatus", cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod)),
        ("ContainerStatus", cri_pb2.ContainerStatusRequest(container_id=container)),
    ):
        assert refused(client, method, request).code() is grpc.StatusCode.NOT_FOUND
    assert Path(client.pods[pod].log_directory, "main.log").exists()
    run_pod(client, client.pods[pod])
