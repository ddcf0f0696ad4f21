"""Rules of docs/contract.md for containers, through the socket, held against the kernel where it has them."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import SLEEP, Client, cgroup_file
from tests.daemon import Daemon
from tests.images import catalogue

M = 1 << 20
EXITED = cri_pb2.CONTAINER_EXITED
STUBBORN = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
POLITE = ("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")


@pytest.fixture
def pod(client: Client) -> str:
    return client.run_pod(host_network=True)


def code(error: Any) -> grpc.StatusCode:
    found: grpc.StatusCode = error.value.code()
    return found


def ended(client: Client, pod: str, command: tuple[str, ...], **wanted: Any) -> Any:
    """Run it to its end; its status then."""
    stream = client.runtime.GetContainerEvents(cri_pb2.GetEventsRequest())
    stream.initial_metadata()
    container = client.run(pod, command=command, **wanted)
    for event in stream:
        if (event.container_id, event.container_event_type) == (container, cri_pb2.CONTAINER_STOPPED_EVENT):
            break
    stream.cancel()
    return client.status(container).status


def log_text(status: Any) -> str:
    return Path(status.log_path).read_text()


def ready(client: Client, container: str) -> None:
    """Its command has printed that its trap is set; the log's writer tells when by changing the file."""
    path = Path(client.status(container).status.log_path)
    deadline = time.monotonic() + 20
    while "ready" not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_end_has_its_code_and_reason(client: Client, pod: str) -> None:
    seen = {}
    for name, script in {
        "good": "exit 0",
        "bad": "exit 3",
        "killed": "kill -9 $$",
        "term": "kill $$",
    }.items():
        # A shell of its own dies by the signal, which the first process of a namespace would ignore.
        status = ended(client, pod, ("sh", "-c", f"sh -c '{script}'; exit $?"), name=name)
        seen[name] = (status.exit_code, status.reason)
    assert seen == {
        "good": (0, "Completed"), "bad": (3, "Error"), "killed": (137, "Error"), "term": (143, "Error"),
    }  # fmt: skip


def test_a_container_out_of_memory_says_so(client: Client, pod: str) -> None:
    eat = ("sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1")
    status = ended(client, pod, eat, memory_limit_in_bytes=16 * M, memory_swap_limit_in_bytes=16 * M)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_a_container_s_times_follow_one_another(client: Client, pod: str) -> None:
    container = client.create(pod)
    made = client.status(container).status
    assert (made.state, made.created_at > 0, made.started_at, made.finished_at) == (
        cri_pb2.CONTAINER_CREATED, True, 0, 0,
    )  # fmt: skip
    client.start(container)
    running = client.status(container).status
    assert (running.created_at, running.finished_at) == (made.created_at, 0)
    client.stop(container)
    status = client.status(container).status
    assert made.created_at <= running.started_at == status.started_at <= status.finished_at <= time.time_ns()


def test_a_failed_start_is_start_error_with_the_runtime_s_words(client: Client, pod: str) -> None:
    container = client.create(pod, command=("/no/such/program",))
    with pytest.raises(grpc.RpcError):
        client.start(container)
    status = client.status(container).status
    assert (status.state, status.exit_code, status.reason) == (EXITED, 128, "StartError")
    assert (status.started_at, status.finished_at >= status.created_at) == (0, True)
    assert "/no/such/program" in status.message
    client.remove(container)


def test_a_container_starts_once(client: Client, pod: str) -> None:
    container = client.run(pod)
    with pytest.raises(grpc.RpcError) as error:
        client.start(container)
    assert code(error) is grpc.StatusCode.FAILED_PRECONDITION
    client.stop(container)
    with pytest.raises(grpc.RpcError) as error:
        client.start(container)
    assert code(error) is grpc.StatusCode.FAILED_PRECONDITION


def test_an_image_that_is_not_here_is_not_pulled(client: Client, pod: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        client.create(pod, image="registry.k8s.io/not-pulled:1")
    assert code(error) is grpc.StatusCode.NOT_FOUND
    assert error.value.details().startswith("config.image.image: ")  # type: ignore[attr-defined]


def request(client: Client, pod: str, **config: Any) -> cri_pb2.CreateContainerRequest:
    """With the pod's namespaces."""
    made = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="main"),
        image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX),
        **config,
    )
    options = client.pods[pod].linux.security_context.namespace_options
    made.linux.security_context.namespace_options.CopyFrom(options)
    return cri_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=made, sandbox_config=client.pods[pod])


def test_what_is_run_is_the_request_over_the_image(client: Client, pod: str) -> None:
    wanted = request(
        client, pod,
        command=["sh"], args=["-c", "sleep 1000 & wait"], working_dir="/made/here",
        envs=[cri_pb2.KeyValue(key="A", value=b"1"), cri_pb2.KeyValue(key="A", value=b"2")],
    )  # fmt: skip
    container = client.call("CreateContainer", wanted).container_id
    client.start(container)
    pid = client.pid(container)
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sh\0-c\0sleep 1000 & wait\0"
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/made/here")
    variables = dict(
        entry.split(b"=", 1) for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if entry
    )
    assert variables[b"A"] == b"2"
    assert {b"PATH", b"HOSTNAME"} <= set(variables)


def test_the_stop_signal_is_the_request_s_or_sigterm(client: Client, pod: str) -> None:
    assert client.status(client.create(pod)).status.stop_signal == cri_pb2.SIGNAL_SIGTERM
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    wanted = request(
        client, pod,
        command=["sh", "-c", script], stop_signal=cri_pb2.SIGNAL_SIGUSR1, log_path="signal.log",
    )  # fmt: skip
    wanted.config.metadata.name = "signal"
    container = client.call("CreateContainer", wanted).container_id
    assert client.status(container).status.stop_signal == cri_pb2.SIGNAL_SIGUSR1
    client.start(container)
    ready(client, container)
    client.call("StopContainer", cri_pb2.StopContainerRequest(container_id=container, timeout=60))
    assert client.status(container).status.exit_code == 9


def test_a_log_is_kept_only_when_asked_for(client: Client, pod: str) -> None:
    wanted = request(client, pod, command=list(SLEEP))
    container = client.call("CreateContainer", wanted).container_id
    client.start(container)
    assert client.status(container).status.log_path == ""
    assert client.exec(container, "echo", "works") == "works\n"
    logged = client.create(pod, "logged")
    path = Path(client.status(logged).status.log_path)
    assert (path.is_absolute(), path.name) == (True, "logged.log")


def test_another_container_s_processes_are_joined_while_it_runs(client: Client, pod: str) -> None:
    target = client.run(pod, "target")
    wanted = request(client, pod, command=list(SLEEP))
    options = wanted.config.linux.security_context.namespace_options
    options.pid, options.target_id = cri_pb2.TARGET, target
    container = client.call("CreateContainer", wanted).container_id
    client.start(container)
    spaces = {Path(f"/proc/{client.pid(one)}/ns/pid").readlink() for one in (target, container)}
    assert len(spaces) == 1
    client.stop(container)
    client.stop(target)
    wanted.config.metadata.name = "late"
    with pytest.raises(grpc.RpcError) as error:
        client.call("CreateContainer", wanted)
    assert "target_id: " in error.value.details()  # type: ignore[attr-defined]


def test_a_source_that_is_not_there_is_an_error_and_is_not_made(
    client: Client, pod: str, tmp_path: Path
) -> None:
    mount = cri_pb2.Mount(container_path="/m", host_path=str(tmp_path / "absent"))
    with pytest.raises(grpc.RpcError) as error:
        client.create(pod, mounts=(mount,))
    assert "config.mounts[0].host_path" in error.value.details()  # type: ignore[attr-defined]
    assert not (tmp_path / "absent").exists()


def test_output_is_in_the_log_before_the_end_is_told(client: Client, pod: str) -> None:
    for n in range(5):
        status = ended(client, pod, ("sh", "-c", "seq 1 500"), name=f"c{n}")
        lines = [line.split(" ", 3)[3] for line in log_text(status).splitlines()]
        assert lines == [str(number) for number in range(1, 501)]


def test_log_lines_are_time_stream_tag_and_content(client: Client, pod: str) -> None:
    script = "echo out; echo err >&2; echo; printf 'a\\tb\\001\\n'; printf end"
    status = ended(client, pod, ("sh", "-c", script))
    lines = log_text(status).split("\n")
    assert lines.pop() == ""
    shape = re.compile(
        r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d)) (stdout|stderr) ([FP]) (.*)\Z"
    )
    parts = [shape.match(line).groups() for line in lines]  # type: ignore[union-attr]
    assert sorted(part[1:] for part in parts) == sorted(
        [
            ("stdout", "F", "out"), ("stderr", "F", "err"), ("stdout", "F", ""),
            ("stdout", "F", "a\tb\x01"), ("stdout", "P", "end"),
        ]
    )  # fmt: skip
    times = [part[0] for part in parts if part[1] == "stdout"]
    assert times == sorted(times)


def stop(client: Client, container: str, seconds: int) -> float:
    began = time.monotonic()
    client.call("StopContainer", cri_pb2.StopContainerRequest(container_id=container, timeout=seconds))
    return time.monotonic() - began


def test_a_stop_signals_waits_and_kills(client: Client, pod: str) -> None:
    polite, stubborn = client.run(pod, "polite", POLITE), client.run(pod, "stubborn", STUBBORN)
    ready(client, polite)
    ready(client, stubborn)
    assert stop(client, polite, 60) < 30
    status = client.status(polite).status
    assert (status.state, status.exit_code, status.finished_at > 0) == (EXITED, 7, True)
    pid = client.pid(stubborn)
    assert 1 <= stop(client, stubborn, 1) < 30
    assert not Path(f"/proc/{pid}/exe").exists()
    status = client.status(stubborn).status
    assert (status.state, status.exit_code) == (EXITED, 137)
    assert stop(client, stubborn, 60) < 30


def test_a_later_stop_shortens_the_wait_of_an_earlier_one(client: Client, pod: str) -> None:
    container = client.run(pod, "stubborn", STUBBORN)
    ready(client, container)
    taken: list[float] = []
    first = threading.Thread(target=lambda: taken.append(stop(client, container, 100)))
    first.start()
    try:
        stop(client, container, 1)
    finally:
        first.join()
    assert taken[0] < 60
    assert client.status(container).status.exit_code == 137


def test_a_stop_goes_on_without_its_caller(client: Client, pod: str) -> None:
    container = client.run(pod, "stubborn", STUBBORN)
    ready(client, container)
    asked = cri_pb2.StopContainerRequest(container_id=container, timeout=2)
    with pytest.raises(grpc.RpcError) as error:
        client.runtime.StopContainer(asked, timeout=0.5)
    assert code(error) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert stop(client, container, 100) < 60  # joins the one that goes on
    assert client.status(container).status.exit_code == 137


def test_removing_takes_everything_but_the_log(client: Client, pod: str) -> None:
    container = client.run(pod)
    status, pid = client.status(container).status, client.pid(container)
    bundle = client.daemon.state_dir / "containers" / container
    assert bundle.is_dir()
    client.remove(container)
    client.remove(container)
    assert not Path(f"/proc/{pid}/exe").exists()
    assert not bundle.exists()
    assert Path(status.log_path).exists()
    with pytest.raises(grpc.RpcError) as error:
        client.status(container)
    assert code(error) is grpc.StatusCode.NOT_FOUND
    client.create(pod)


def test_a_log_of_what_does_not_run_is_not_reopened(client: Client, pod: str) -> None:
    container = client.create(pod)
    path = Path(client.status(container).status.log_path)
    with pytest.raises(grpc.RpcError) as error:
        client.call("ReopenContainerLog", cri_pb2.ReopenContainerLogRequest(container_id=container))
    assert code(error) is grpc.StatusCode.FAILED_PRECONDITION
    assert not path.exists()


def test_a_command_beside_the_container_has_its_surroundings(client: Client, pod: str) -> None:
    wanted = request(
        client, pod,
        command=list(SLEEP), working_dir="/tmp", envs=[cri_pb2.KeyValue(key="A", value=b"b")],
    )  # fmt: skip
    context = wanted.config.linux.security_context
    context.run_as_user.value, context.run_as_group.value = 12, 34
    context.supplemental_groups.append(56)
    container = client.call("CreateContainer", wanted).container_id
    client.start(container)
    script = "echo $A; pwd; id -u; id -G; cat; echo no >&2; exit 3"
    answer = client.call(
        "ExecSync", cri_pb2.ExecSyncRequest(container_id=container, cmd=["sh", "-c", script], timeout=60)
    )
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"b\n/tmp\n12\n34 56\n", b"no\n", 3)
    client.stop(container)
    with pytest.raises(grpc.RpcError) as error:
        client.exec(container, "true")
    assert code(error) is grpc.StatusCode.FAILED_PRECONDITION


def test_a_command_beyond_its_limit_is_gone(client: Client, pod: str) -> None:
    container = client.run(pod)
    asked = cri_pb2.ExecSyncRequest(container_id=container, cmd=["sleep", "987"], timeout=1)
    with pytest.raises(grpc.RpcError) as error:
        client.call("ExecSync", asked)
    assert code(error) is grpc.StatusCode.DEADLINE_EXCEEDED
    group = cgroup_file(client.pid(container), "pids", "cgroup.procs")
    assert group.read_text().split() == [str(client.pid(container))]


def test_usage_while_containers_go_is_that_of_the_others(client: Client, pod: str) -> None:
    stays = client.run(pod, "stays")
    going = [client.run(pod, f"goes{n}") for n in range(4)]
    failures: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            stats = client.call("ListContainerStats", cri_pb2.ListContainerStatsRequest()).stats
            if stays not in [one.attributes.id for one in stats]:
                failures.append(str(stats))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for container in going:
            client.remove(container)
    finally:
        done.set()
        asking.join()
    assert failures == []
    stats = client.call("ListContainerStats", cri_pb2.ListContainerStatsRequest()).stats
    assert [one.attributes.id for one in stats] == [stays]


def test_a_client_s_first_calls_need_nothing_and_a_restart_changes_nothing(daemon: Daemon) -> None:
    client = Client(daemon)
    client.call("Version", cri_pb2.VersionRequest())
    usage = client.images.ImageFsInfo(cri_pb2.ImageFsInfoRequest()).image_filesystems[0]
    assert (usage.HasField("used_bytes"), Path(usage.fs_id.mountpoint).is_dir()) == (True, True)

    client.pull()
    container = client.run(client.run_pod(host_network=True, cgroup_parent=""))
    before = client.status(container).status
    asked = cri_pb2.ContainerStatsRequest(container_id=container)
    used = client.call("ContainerStats", asked).stats.cpu.usage_core_nano_seconds.value
    pid = client.pid(container)
    daemon.restart()
    client = Client(daemon)
    assert client.status(container).status == before
    assert client.pid(container) == pid
    assert client.call("ContainerStats", asked).stats.cpu.usage_core_nano_seconds.value >= used
    assert client.exec(container, "echo", "on") == "on\n"


def test_a_removed_image_is_gone_and_removing_it_again_succeeds(client: Client) -> None:
    client.pull(catalogue.SHORT)
    spec = cri_pb2.ImageSpec(image=catalogue.SHORT)
    for _ in range(2):
        client.images.RemoveImage(cri_pb2.RemoveImageRequest(image=spec))
        status = client.images.ImageStatus(cri_pb2.ImageStatusRequest(image=spec))
        assert not status.HasField("image")
        listed = client.images.ListImages(cri_pb2.ListImagesRequest()).images
        assert catalogue.SHORT not in [tag for image in listed for tag in image.repo_tags]
