"""A state directory that cannot be written: what runs is served, what ends is seen, the rest waits.

Nobody can make a file system read-only under a daemon that has files of it open for writing, but the kernel
after an error, and that has no way back. So the daemon is away while it happens where there is to be one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2
from tests.daemon import CALL_LIMIT, Daemon, running
from tests.fault import cri
from tests.fault.rig import Rig, settled
from tests.fault.test_bad_days import fails, until
from tests.images.registry import Registry, write_hosts
from tests.kubelet.disk import mounted, read_only, writable

INTERNAL = grpc.StatusCode.INTERNAL


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path, 256 << 20) as point:
        yield point


@pytest.fixture
def daemon(prepared_machine: None, image_registry: Registry, disk: Path) -> Iterator[Daemon]:
    overrides = {"": {"state_dir": str(disk / "state")}}
    with running(image_registry, overrides=overrides, shared=True) as own:
        yield own
        writable(disk)


@pytest.fixture
def doomed(prepared_machine: None, image_registry: Registry, disk: Path) -> Iterator[Daemon]:
    """One whose state nobody will be able to put away: it is removed by force."""
    own = Daemon(directory=Path(tempfile.mkdtemp(prefix="crisp-")))
    own.directory.chmod(0o755)
    try:
        write_hosts(own.certs_dir, image_registry)
        own.state_dir.mkdir()
        subprocess.run(["mount", "--bind", disk, own.state_dir], check=True)
        own.start()
        yield own
        assert own.exceptions() == []
    finally:
        own.purge()


def end_of(life: cri.Life) -> tuple[str, int]:
    return life.seen()["container state"], life.code()


def output(life: cri.Life, *command: str) -> str:
    asked = cri_pb2.ExecSyncRequest(container_id=life.container_id, cmd=command, timeout=60)
    answer: Any = life.daemon.runtime().ExecSync(asked, timeout=CALL_LIMIT)
    return str(answer.stdout.decode())


def test_read_only_state_keeps_what_runs_and_forgets_nothing_that_ends(daemon: Daemon, disk: Path) -> None:
    cri.pull(daemon)
    rig = Rig(own=daemon)
    cri.Life(daemon=daemon, name="warm").start()
    daemon.remove_all_pods()
    base = rig.things()
    lives = [cri.Life(daemon=daemon, name=name) for name in ("steady", "away", "seen", "stopped")]
    for life in lives:
        life.start()
    steady, away, seen, stopped = lives
    before = steady.seen()
    processes = {life.name: life.seen()["process"] for life in lives}
    daemon.kill()
    read_only(disk)
    os.kill(processes["away"], signal.SIGTERM)
    until(lambda: not Path(f"/proc/{processes['away']}").exists())
    daemon.start()
    late = cri.Life(daemon=daemon, name="late")
    for _ in range(2):
        assert steady.seen() == before
        assert output(steady, "echo", "here") == "here\n"
        assert end_of(away) == ("CONTAINER_EXITED", 3)
        fails(lambda: late.ask("RunPodSandbox"), INTERNAL, str(disk), "read-only", "writable")
        if end_of(seen) == ("CONTAINER_RUNNING", 0):
            os.kill(processes["seen"], signal.SIGTERM)
        until(lambda: end_of(seen) == ("CONTAINER_EXITED", 3))
        fails(lambda: stopped.ask("StopPodSandbox"), INTERNAL, "read-only", "writable")
        daemon.kill()
        daemon.start()
    writable(disk)
    late.ask("RunPodSandbox")
    stopped.ask("StopPodSandbox")
    until(lambda: stopped.seen()["pod state"] == "SANDBOX_NOTREADY")
    daemon.restart()
    assert steady.seen() == before
    assert [end_of(life) for life in (away, seen)] == [("CONTAINER_EXITED", 3)] * 2
    daemon.remove_all_pods()
    assert settled(lambda: sorted(rig.things() ^ base)) == []


def test_a_file_system_that_the_kernel_gives_up_under_the_daemon_costs_no_pod(
    doomed: Daemon, disk: Path
) -> None:
    cri.pull(doomed)
    steady, seen, away = (cri.Life(daemon=doomed, name=name) for name in ("steady", "seen", "away"))
    for life in (steady, seen, away):
        life.start()
    before = steady.seen()
    processes = {life.name: life.seen()["process"] for life in (seen, away)}
    subprocess.run(["mount", "-o", "remount,abort", disk], check=True)  # what ext4 does after an error
    late = cri.Life(daemon=doomed, name="late")
    fails(lambda: late.ask("RunPodSandbox"), INTERNAL, str(doomed.state_dir), "read-only", "dmesg says why")
    assert output(steady, "echo", "here") == "here\n"
    os.kill(processes["seen"], signal.SIGTERM)
    until(lambda: end_of(seen) == ("CONTAINER_EXITED", 3))
    doomed.kill()
    os.kill(processes["away"], signal.SIGTERM)
    until(lambda: not Path(f"/proc/{processes['away']}").exists())
    doomed.start()
    assert steady.seen() == before
    assert output(steady, "echo", "again") == "again\n"
    assert [end_of(life) for life in (seen, away)] == [("CONTAINER_EXITED", 3)] * 2
    fails(lambda: late.ask("RunPodSandbox"), INTERNAL, str(doomed.state_dir), "read-only", "dmesg says why")
