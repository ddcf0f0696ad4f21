"""gVisor by its command line: one sandbox a pod, whose ends only the runtime's `wait` tells."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from api.proto import admin_pb2, admin_pb2_grpc, cri_pb2
from tests.component.cri.client import Client
from tests.component.streaming.test_port_forward import forwarding
from tests.daemon import running
from tests.images.registry import Registry
from tests.machine import PATIENCE
from tests.parts.build import program

HANDLER = "runsc-cli"


@pytest.fixture
def client(prepared_machine: None, image_registry: Registry) -> Iterator[Client]:
    """kubelet's socket of a daemon with that handler, which the test may kill."""
    overrides = {f"handlers.{HANDLER}": {"binary": str(program("runsc", "runsc"))}}
    with running(image_registry, overrides=overrides) as daemon:
        made = Client(daemon)
        made.pull()
        yield made
        if daemon.process is None:
            daemon.start()
        daemon.remove_all_pods()
        daemon.remove_pod_groups()


def test_a_pod_of_two_containers_lives_and_ends_as_any_other(client: Client) -> None:
    pod = client.run_pod(handler=HANDLER)
    one, two = client.run(pod, "one"), client.run(pod, "two", ("sh", "-c", "echo out; exit 9"))
    assert "gvisor" in client.exec(one, "cat", "/proc/version")
    assert ended(client, two) == (9, "Error")
    log = Path(client.pods[pod].log_directory, "two.log").read_text()
    assert log.endswith(" stdout F out\n")
    client.stop(one)
    assert ended(client, one) == (137, "Error")
    client.remove(two)
    again = client.run(pod, "two", ("true",))
    assert ended(client, again) == (0, "Completed")


def test_an_end_while_no_daemon_is_there_is_told_with_its_code(client: Client) -> None:
    pod = client.run_pod(handler=HANDLER)
    ends = client.run(pod, "ends", ("sh", "-c", "echo last; exit 7"))
    client.daemon.kill()
    client.daemon.start()
    again = Client(client.daemon)
    again.pods = client.pods
    assert ended(again, ends) == (7, "Error")
    stays = again.run(pod, "stays")
    client.daemon.kill()
    client.daemon.start()
    assert Client(client.daemon).exec(stays, "echo", "here") == "here\n"


def test_a_deadline_kills_what_runs_inside(client: Client) -> None:
    container = client.run(client.run_pod(handler=HANDLER))
    request = cri_pb2.ExecSyncRequest(container_id=container, cmd=("sleep", "4321"), timeout=1)
    with pytest.raises(grpc.RpcError) as late:
        client.call("ExecSync", request)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "4321" not in client.exec(container, "ps")


def test_a_port_of_the_sandbox_is_reached(client: Client) -> None:
    pod = client.run_pod(handler=HANDLER)
    client.run(pod, "server", ("nc", "-l", "-p", "7000", "-e", "echo", "hello from inside"))
    with forwarding(client, pod, "plain") as session:
        key = session.connect(7000)
        session.until(key, b"hello from inside")


def test_a_sandbox_that_is_killed_takes_its_containers_with_it(client: Client) -> None:
    pod = client.run_pod(handler=HANDLER)
    container = client.run(pod)
    (sandbox,) = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and b"runsc-sandbox" in _arguments(entry)
        and pod.encode() in _arguments(entry)
    ]
    os.kill(sandbox, signal.SIGKILL)
    assert ended(client, container) == (137, "Error")


def test_a_program_that_is_not_there_is_named(client: Client) -> None:
    pod = client.run_pod(handler=HANDLER)
    with pytest.raises(grpc.RpcError) as refused:
        client.run(pod, "bad", ("nonesuch",))
    assert "handler runsc-cli: runsc start of container" in str(refused.value.details())
    assert 'error finding executable "nonesuch" in PATH' in str(refused.value.details())


def test_the_doctor_runs_a_sandbox(client: Client) -> None:
    stub = admin_pb2_grpc.AdminStub(client.daemon.channel(client.daemon.admin_socket))
    checks = stub.Doctor(admin_pb2.DoctorRequest(handler=HANDLER), timeout=120).checks
    assert [check.found for check in checks if check.verdict != admin_pb2.OK] == []
    assert checks[-1].name == "remove"


def ended(client: Client, container: str) -> tuple[int, str]:
    """Exit code and reason, once it has ended."""
    until = time.monotonic() + 30 * PATIENCE
    while (status := client.status(container).status).state != cri_pb2.CONTAINER_EXITED:
        assert time.monotonic() < until, f"container {container} does not end"
        time.sleep(0.05)
    return status.exit_code, status.reason


def _arguments(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""
