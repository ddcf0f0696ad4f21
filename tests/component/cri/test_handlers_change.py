"""Handlers come, change and go while the daemon runs: pods keep what they were started with."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import admin_pb2, admin_pb2_grpc, cri_pb2
from shim.kernel import libc
from tests.component.cri.client import Client
from tests.daemon import Daemon, toml
from tests.doubles import oci_runtime
from tests.doubles.oci_runtime import Plan

LIMIT = 20.0  # seconds in which the daemon logs something
IN_MODIFY = 0x2


def wrapper(directory: Path, name: str, real: str = "/usr/bin/crun") -> Path:
    """A runtime of another name: a program of its own that is crun."""
    program = directory / name
    shutil.copyfile(real, program)
    program.chmod(0o755)
    return program


def handlers(daemon: Daemon) -> dict[str, Any]:
    stub = admin_pb2_grpc.AdminStub(daemon.channel(daemon.admin_socket))
    found = stub.Handlers(admin_pb2.HandlersRequest(), timeout=10).handlers
    return {f"{one.name}{' (former)' if one.former else ''}": one for one in found}


def take_over(daemon: Daemon, text: str, *, hangup: bool = False) -> None:
    """Write the configuration and wait until the daemon has said that it took it over, or why not."""
    seen = told(daemon)
    descriptor = libc.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        libc.call("inotify_add_watch", descriptor, os.fsencode(daemon.directory / "log"), IN_MODIFY)
        if hangup:
            os.kill(daemon.pid, signal.SIGHUP)
        else:
            daemon.config_file.write_text(text)
        while told(daemon) <= seen:
            ready, _, _ = select.select([descriptor], [], [], LIMIT)
            assert ready, daemon.log[-4000:]
            os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def told(daemon: Daemon) -> int:
    return sum(daemon.log.count(f"{what} taken over") for what in ("handlers are", "configuration is not"))


def with_handlers(daemon: Daemon, **tables: dict[str, Any]) -> str:
    return toml({**daemon.settings(), **{f"handlers.{name}": table for name, table in tables.items()}})


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    """kubelet's socket of the test's own daemon; the pods' cgroups are its to remove."""
    made = Client(daemon)
    made.pull()
    yield made
    if daemon.process is None:
        daemon.start()
    daemon.remove_all_pods()
    daemon.remove_pod_groups()


def test_pods_keep_the_handler_that_they_were_started_with(client: Client, tmp_path: Path) -> None:
    daemon = client.daemon
    one, two = wrapper(tmp_path, "one"), wrapper(tmp_path, "two")
    take_over(daemon, with_handlers(daemon, mine={"binary": str(one)}))
    assert handlers(daemon)["mine"].binary == str(one)
    old = client.run(client.run_pod(handler="mine"))

    take_over(daemon, with_handlers(daemon, mine={"binary": str(two), "root": str(tmp_path / "root")}))
    known = handlers(daemon)
    assert (known["mine"].binary, known["mine"].pods) == (str(two), 0)
    assert (known["mine (former)"].binary, known["mine (former)"].pods) == (str(one), 1)
    new = client.run(client.run_pod(handler="mine"))
    assert client.exec(old, "echo", "old") == "old\n"
    assert client.exec(new, "echo", "new") == "new\n"

    take_over(daemon, with_handlers(daemon))
    with pytest.raises(grpc.RpcError) as refused:
        client.run_pod(handler="mine")
    assert "handler 'mine' is not known" in str(refused.value.details())
    assert {name: one.pods for name, one in handlers(daemon).items() if one.former} == {"mine (former)": 1}
    assert client.exec(old, "echo", "old") == "old\n"

    daemon.kill()
    daemon.start()
    again = Client(daemon)
    assert again.exec(old, "echo", "again") == "again\n"
    assert again.exec(new, "echo", "again") == "again\n"
    daemon.remove_all_pods()
    assert list(tmp_path.glob("root/*")) == []


def test_a_broken_entry_disables_only_itself_and_is_named(daemon: Daemon) -> None:
    broken = {"kind": "oci", "bianry": "/nowhere"}
    take_over(daemon, with_handlers(daemon, odd=broken, gone={"binary": "/nowhere/gone"}))
    known = handlers(daemon)
    assert "unknown key; did you mean 'binary'?" in known["odd"].problem
    assert known["gone"].problem == "handlers.gone.binary: /nowhere/gone does not exist"
    assert (known["runc"].problem, known["crun"].problem) == ("", "")
    status = daemon.runtime().Status(cri_pb2.StatusRequest(verbose=True), timeout=10)
    conditions = {one.type: one for one in status.status.conditions}
    assert conditions["RuntimeReady"].status
    assert not conditions["HandlersUsable"].status
    assert "/nowhere/gone does not exist" in conditions["HandlersUsable"].message
    stub = admin_pb2_grpc.AdminStub(daemon.channel(daemon.admin_socket))
    checks = stub.Doctor(admin_pb2.DoctorRequest(), timeout=30).checks
    assert {one.name for one in checks if one.area == "handlers" and one.verdict == admin_pb2.PROBLEM} == {
        "odd",
        "gone",
    }
    daemon.overrides = {**daemon.overrides, "handlers.odd": broken}
    daemon.restart()
    assert handlers(daemon)["odd"].problem


def test_a_hangup_reads_again_and_a_mistake_elsewhere_changes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    program = tmp_path / "late"
    take_over(daemon, with_handlers(daemon, late={"binary": str(program)}))
    assert handlers(daemon)["late"].problem == f"handlers.late.binary: {program} does not exist"
    wrapper(tmp_path, "late")
    take_over(daemon, "", hangup=True)
    assert handlers(daemon)["late"].problem == ""

    take_over(daemon, f"{with_handlers(daemon)}\n[nonsense]\n")
    assert "late" in handlers(daemon)
    assert "nonsense: unknown key" in daemon.log


def test_the_policy_decides_and_says_why(client: Client) -> None:
    daemon = client.daemon
    rules = {"host": "crun", "untrusted": "runc"}
    take_over(daemon, toml({**daemon.settings(), "handler_policy": rules}))

    def decided(pod: str) -> tuple[str, str]:
        answer = client.call(
            "PodSandboxStatus", cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
        )
        info = json.loads(answer.info["info"])
        return info["handler"], info["handlerReason"]

    assert decided(client.run_pod()) == ("runc", "the default handler")
    assert decided(client.run_pod(host_network=True)) == (
        "crun",
        "handler_policy.host: the pod uses the host's network namespace",
    )
    assert "handler is chosen" in daemon.log


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_a_handler_is_tried_by_a_pod(served: Daemon, handler: str) -> None:
    stub = admin_pb2_grpc.AdminStub(served.channel(served.admin_socket))
    checks = stub.Doctor(admin_pb2.DoctorRequest(handler=handler), timeout=120).checks
    assert [(one.name, one.verdict) for one in checks] == [
        (name, admin_pb2.OK) for name in ("probe", "run pod", "state", "exec", "stop", "remove")
    ]
    (unknown,) = stub.Doctor(admin_pb2.DoctorRequest(handler="nobody"), timeout=30).checks
    assert (unknown.name, unknown.verdict) == ("probe", admin_pb2.PROBLEM)
    assert "'nobody' is not known" in unknown.found


def test_the_doctor_says_at_which_verb_it_fails(daemon: Daemon, tmp_path: Path) -> None:
    steps = {"create": "run pod", "start": "run pod", "state": "state", "exec": "exec"}
    for verb in steps:
        (tmp_path / verb).mkdir()
        plan = Plan(act="fail", words="the moon is in the way")
        binary = oci_runtime.install(tmp_path / verb, Path("/usr/bin/crun"), {verb: plan})
        daemon.overrides[f"handlers.bad-{verb}"] = {"binary": str(binary)}
    daemon.restart()
    stub = admin_pb2_grpc.AdminStub(daemon.channel(daemon.admin_socket))
    failed = {}
    for verb in steps:
        checks = stub.Doctor(admin_pb2.DoctorRequest(handler=f"bad-{verb}"), timeout=120).checks
        (failed[verb],) = [check for check in checks if check.verdict != admin_pb2.OK]
    assert {verb: check.name for verb, check in failed.items()} == steps
    for verb in ("create", "start", "exec"):
        words = rf"handler bad-{verb}: double-runtime {verb} of container .*the moon is in the way"
        assert re.search(words, failed[verb].found)
    assert failed["state"].found == "handler bad-state: the first process was started and is unknown"
