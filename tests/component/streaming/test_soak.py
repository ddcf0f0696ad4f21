"""Connecting, working and leaving again and again costs the daemon nothing that stays."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from api.proto import cri_pb2
from api.streaming.channels import Ended
from tests.component.cri.client import Client, cgroup_text, pids
from tests.component.streaming.clients import (
    NEWEST,
    OLDEST,
    PLAIN,
    attach_url,
    conversation,
    exec_url,
    shell,
)
from tests.component.streaming.pods import echo, in_pod
from tests.component.streaming.test_port_forward import forwarding
from tests.daemon import Daemon

GROWTH = 1.05  # of the resident memory, at most
SETTLING = 20.0  # seconds that the last connection's end may take to be seen everywhere


def descriptors(daemon: Daemon) -> int:
    """Those that are no socket or event poll: clients of gRPC come and go in their own time."""
    found = []
    for name in os.listdir(f"/proc/{daemon.pid}/fd"):  # noqa: PTH208 - names only
        try:
            found.append(str(Path(f"/proc/{daemon.pid}/fd/{name}").readlink()))
        except FileNotFoundError:
            continue
    return len(found)


def resident(daemon: Daemon) -> int:
    """KiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{daemon.pid}/status").read_text())
    assert found is not None
    return int(found[1])


@pytest.fixture
def cycles(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--soak-cycles"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("operation", ["exec", "attach", "portforward"])
def test_cycles_leave_memory_and_descriptors_as_they_were(
    client: Client, served: Daemon, cycles: int, operation: str
) -> None:
    pod = client.run_pod()
    target = shell(client, tty=False, script="while read line; do echo $line; done", pod=pod)

    def once(number: int) -> None:
        dialect = (NEWEST, OLDEST)[number % 2]
        if operation == "exec":
            with conversation(exec_url(client, target, "true"), dialect, PLAIN) as remote:
                assert remote.end() == Ended(code=0)
        elif operation == "attach":
            with conversation(attach_url(client, target), dialect, PLAIN) as remote:
                remote.send(remote.core.input(b"%d.\n" % number))
                remote.until(b"%d.\n" % number)
        else:
            with forwarding(client, pod, ("SPDY", "tunnel")[number % 2]) as session:
                key = session.connect(8080)
                session.send(session.core.send(key, b"%d." % number))
                session.until(key, b"%d." % number)

    with in_pod(client, pod, 8080, echo):
        repeat(once, 20)
        before = (descriptors(served), resident(served))
        repeat(once, cycles)
    until = time.monotonic() + SETTLING
    while descriptors(served) > before[0] and time.monotonic() < until:
        time.sleep(0.1)
    assert descriptors(served) <= before[0]
    assert resident(served) <= before[1] * GROWTH


@pytest.mark.timeout(7200)
def test_probes_that_run_into_their_deadline_leave_no_process(client: Client, cycles: int) -> None:
    """Each starts a child, and one that leaves its session, its parent and its output."""
    # With a first process that reaps: one that does not would keep the dead as zombies.
    target = client.run(client.run_pod(handler="runc", pid=cri_pb2.POD))
    script = "setsid sh -c '(exec setsid sleep 300) >/dev/null 2>&1 </dev/null & exit'; sleep 300 & sleep 300"
    request = cri_pb2.ExecSyncRequest(container_id=target, cmd=["sh", "-c", script], timeout=1)

    def inside() -> list[int]:
        return [pid for pid in pids() if target in cgroup_text(pid)]

    before = inside()

    def probe(_: int) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as refusal:
            client.call("ExecSync", request)
        code: grpc.StatusCode = refusal.value.code()
        return code

    with ThreadPoolExecutor(16) as pool:
        codes = set(pool.map(probe, range(cycles // 25)))
    assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert inside() == before


def repeat(once: Callable[[int], None], count: int) -> None:
    for number in range(count):
        once(number)
