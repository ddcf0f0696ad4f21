"""One pod for each handler at the same time, in one daemon, while it is killed and restarted."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.component.cri.client import Client
from tests.daemon import CALL_LIMIT, running
from tests.doubles import kata_runtime
from tests.fault.cri import Life, listed
from tests.fault.scenes import VERBS
from tests.images.registry import Registry
from tests.parts.build import program
from tests.parts.cargo import NoToolchain

ROUNDS = 2


def handlers(doubles: Path) -> dict[str, dict[str, Any]]:
    """Every runtime that tests have, by the name that the documentation gives it; Kata's is a double.

    youki is left out where it cannot be built; its own conformance test is then counted as skipped.
    """
    found = {
        "runc": {},
        "crun": {},
        "runc-new": {"binary": str(program("runc", "runc"))},
        "runsc-cli": {"binary": str(program("runsc", "runsc"))},
        "shim-runc-v2": {
            "kind": "shim",
            "binary": str(program("containerd", "containerd-shim-runc-v2")),
            "runtime_binary": shutil.which("runc") or "/usr/sbin/runc",
        },
        "runsc": {
            "kind": "shim",
            "binary": str(program("runsc", "containerd-shim-runsc-v1")),
            "runtime_binary": str(program("runsc", "runsc")),
        },
    }
    found["kata"] = {"binary": str(kata_runtime.install(doubles))}
    with contextlib.suppress(NoToolchain):
        found["youki"] = {"binary": str(program("youki", "youki"))}
    return found


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, dict[str, Any]]:
    return handlers(tmp_path)


@pytest.fixture
def client(
    prepared_machine: None, image_registry: Registry, tables: dict[str, dict[str, Any]]
) -> Iterator[Client]:
    overrides = {f"handlers.{name}": table for name, table in tables.items() if table}
    with running(image_registry, overrides=overrides) as daemon:
        made = Client(daemon)
        made.pull()
        yield made
        if daemon.process is None:
            daemon.start()
        daemon.remove_all_pods()
        daemon.remove_pod_groups()


@pytest.mark.timeout(240)
def test_pods_of_every_handler_live_side_by_side_through_deaths_of_the_daemon(
    client: Client, tables: dict[str, dict[str, Any]]
) -> None:
    daemon = client.daemon
    pods = {name: client.run_pod(handler=name) for name in tables}
    stays = {name: client.run(pod, "stays") for name, pod in pods.items()}
    ends = {
        name: client.run(pod, "ends", ("sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 7"))
        for name, pod in pods.items()
    }
    for round_ in range(ROUNDS):
        daemon.kill()
        daemon.start()
        again = Client(daemon)
        again.pods = client.pods
        said = {name: again.exec(container, "echo", f"{round_}") for name, container in stays.items()}
        assert said == dict.fromkeys(stays, f"{round_}\n")
    # They end while nobody is there; what each said last is found afterwards.
    for container in ends.values():
        request = cri_pb2.ExecSyncRequest(container_id=container, cmd=("touch", "/tmp/end"), timeout=30)
        daemon.runtime().ExecSync(request, timeout=60)
    daemon.kill()
    daemon.start()
    last = Client(daemon)
    last.pods = client.pods
    for container in ends.values():
        last.stop(container)
    codes = {name: last.status(container).status.exit_code for name, container in ends.items()}
    assert codes == dict.fromkeys(ends, 7)
    states = {name: last.status(container).status.state for name, container in stays.items()}
    assert states == dict.fromkeys(stays, cri_pb2.CONTAINER_RUNNING)


LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)


def attempt(life: Life, verb: str) -> bool:
    """Whether the answer came; it does not where the daemon is killed meanwhile."""
    try:
        life.ask(verb)
    except grpc.RpcError as error:
        assert error.code() in LOST, f"{life.name}, {verb}: {error}"
        return False
    return True


def attempt_again(life: Life, verb: str) -> bool:
    """The same once more, which is answered now.

    gVisor's shim gives a start up when the connection that it came by is lost, and may keep half a
    container, or one that has ended (docs/handlers/shims.md): then there is another, as by kubelet.
    """
    try:
        return attempt(life, verb)
    except AssertionError as error:
        halved = "already exists" in str(error) or "is exited: start is not possible" in str(error)
        if not (life.handler == "runsc" and verb == "StartContainer" and halved):
            raise
    life.ask("RemoveContainer")
    life.container.metadata.attempt += 1
    life.ask("CreateContainer")
    life.ask("StartContainer")
    return True


@pytest.mark.timeout(300)
def test_every_handler_starts_and_ends_at_the_same_time_while_the_daemon_dies(
    client: Client, tables: dict[str, dict[str, Any]]
) -> None:
    """Each verb for all at once; the daemon is killed within, and its next life is asked the same."""
    daemon = client.daemon
    lives = [Life(daemon=daemon, name=f"with-{name}", handler=name) for name in tables]
    cut = 0
    with ThreadPoolExecutor(len(lives)) as pool:
        for number, verb in enumerate(VERBS):
            calls = [pool.submit(attempt, life, verb) for life in lives]
            time.sleep(0.1 * (1 + number % 3))
            daemon.kill()
            again = [life for life, call in zip(lives, calls, strict=True) if not call.result()]
            cut += len(again)
            daemon.start()
            # gRPC's connections are the process's: one that was refused meanwhile is tried again later only
            daemon.runtime().Version(cri_pb2.VersionRequest(), wait_for_ready=True, timeout=CALL_LIMIT)
            assert all(pool.map(attempt_again, again, [verb] * len(again))), verb
            if verb == "StartContainer":
                assert {life.seen()["container state"] for life in lives} == {"CONTAINER_RUNNING"}
                pods, containers = listed(daemon)
                assert pods == {life.pod_id for life in lives}
                assert containers == {life.container_id for life in lives}
    assert cut > len(lives)
    assert listed(daemon) == (set(), set())
