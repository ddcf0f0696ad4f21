"""Shims that hang, seen through the socket: what is told of their containers, and that all can be ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.proto import cri_pb2
from tests import leaks
from tests.daemon import CALL_LIMIT, Daemon, running
from tests.doubles.shims.install import Plan, Setup, install
from tests.fault import cri
from tests.fault.rig import Rig, settled
from tests.images.registry import Registry
from tests.machine import PATIENCE
from tests.parts.build import program

SECONDS = 3  # of a call to a shim, and for what was killed to be gone
LONG = 60  # of a call that is not to be waited for
SOON = 15.0 * PATIENCE  # seconds for what waits for nobody; a busy machine takes some
IGNORES = "trap '' TERM; echo up; sleep 1000 & wait; wait"


@contextlib.contextmanager
def served(registry: Registry, binary: Path, *, call: int = SECONDS) -> Iterator[Daemon]:
    """A daemon with one handler "shim" of that program, whose calls may take `call` seconds."""
    table = {"kind": "shim", "binary": str(binary)}
    limits = {"runtime_timeout": f"{call}s", "kill_timeout": f"{SECONDS}s"}
    with running(registry, overrides={"containers": limits, "handlers.shim": table}, shared=True) as daemon:
        cri.pull(daemon)
        yield daemon
        for group in leaks.cgroups():
            if group.endswith(f"{daemon.cgroup_prefix}/guest"):  # the doubles' virtual machines
                Path(group).rmdir()


def double(directory: Path, ways: str, plans: dict[str, Plan]) -> Path:
    return install(directory, Setup(ways=ways, state=directory / "state", plans=plans))


@contextlib.contextmanager
def warmed(registry: Registry, directory: Path, ways: str) -> Iterator[Daemon]:
    """Such a daemon that has made what is made once; given back it must have the same things as then."""
    real = program("containerd", "containerd-shim-runc-v2")
    with served(registry, real if ways == "shim-runc-v2" else double(directory, ways, {})) as daemon:
        rig = Rig(own=daemon)
        warm = cri.Life(daemon=daemon, name="warm", handler="shim")
        warm.start()
        warm.ask("RemovePodSandbox")
        base = rig.things()
        yield daemon
        assert settled(lambda: sorted(rig.things() ^ base)) == []


def stop(life: cri.Life, grace: int) -> float:
    """StopContainer; the seconds that it took."""
    began = time.monotonic()
    request = cri_pb2.StopContainerRequest(container_id=life.container_id, timeout=grace)
    life.daemon.runtime().StopContainer(request, timeout=CALL_LIMIT)
    return time.monotonic() - began


def test_a_stop_signal_that_a_shim_does_not_answer_takes_no_more_than_the_grace(
    prepared_machine: None, image_registry: Registry, tmp_path: Path
) -> None:
    kill = Plan(act="hang", times=1)
    with served(image_registry, double(tmp_path, "kata-go", {"Kill": kill}), call=LONG) as daemon:
        life = cri.Life(daemon=daemon, name="slow", handler="shim", script=IGNORES)
        life.start()
        took = stop(life, 1)
        assert 1 <= took < 1 + SOON
        assert life.seen()["container state"] == "CONTAINER_EXITED"
        assert "a stop signal is not answered within the grace" in daemon.log
        life.ask("RemovePodSandbox")


def shims(daemon: Daemon, *keys: str) -> list[int]:
    """The processes that serve these pods or containers."""
    found = []
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (each / "cmdline").read_bytes().split(b"\0")
            if b"-id" in words and any(key.encode() in words for key in keys):
                found.append(int(each.name))
    return found


@pytest.mark.parametrize("ways", ["shim-runc-v2", "runwasi", "kata-go"])
def test_a_shim_that_hangs_when_the_daemon_comes_back_is_ended_and_its_containers_are_told_as_ended(
    prepared_machine: None, image_registry: Registry, tmp_path: Path, ways: str
) -> None:
    with warmed(image_registry, tmp_path, ways) as daemon:
        life = cri.Life(daemon=daemon, name="hung", handler="shim")
        life.start()
        process = life.seen()["process"]
        assert daemon.stop() == 0
        hung = shims(daemon, life.pod_id, life.container_id)
        assert hung != []
        for pid in hung:
            os.kill(pid, signal.SIGSTOP)
        daemon.start()
        seen = life.seen()
        assert (seen["container state"], seen["process"]) == ("CONTAINER_EXITED", 0)
        assert status(life).exit_code == 137
        assert not alive(process), "it is told as ended and lives"
        assert shims(daemon, life.pod_id, life.container_id) == []
        assert "a shim that does not answer is ended" in daemon.log
        for verb in ("StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox"):
            began = time.monotonic()
            life.ask(verb)
            assert time.monotonic() - began < SOON, verb


@pytest.mark.parametrize("ways", ["shim-runc-v2", "runwasi", "kata-go"])
def test_a_shim_that_hangs_while_the_daemon_lives_keeps_nobody_from_ending_its_containers(
    prepared_machine: None, image_registry: Registry, tmp_path: Path, ways: str
) -> None:
    with warmed(image_registry, tmp_path, ways) as daemon:
        life = cri.Life(daemon=daemon, name="hung", handler="shim", script=IGNORES)
        life.start()
        process = life.seen()["process"]
        for pid in shims(daemon, life.pod_id, life.container_id):
            os.kill(pid, signal.SIGSTOP)
        assert life.seen()["container state"] == "CONTAINER_RUNNING"
        # the grace, the time for SIGKILL, what the shim and its program take to end
        assert stop(life, 1) < 1 + 2 * SECONDS + SOON
        assert (life.seen()["container state"], status(life).exit_code) == ("CONTAINER_EXITED", 137)
        assert not alive(process)
        assert "a shim that does not end" in daemon.log
        for verb in ("RemoveContainer", "StopPodSandbox", "RemovePodSandbox"):
            began = time.monotonic()
            life.ask(verb)
            assert time.monotonic() - began < SOON, verb


def status(life: cri.Life) -> cri_pb2.ContainerStatus:
    asked = cri_pb2.ContainerStatusRequest(container_id=life.container_id)
    return life.daemon.runtime().ContainerStatus(asked, timeout=CALL_LIMIT).status


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
