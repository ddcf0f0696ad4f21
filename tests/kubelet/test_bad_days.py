"""What happens to a node beside kubelet harms no pod more than it must: a monitor that is killed, a cgroup
that somebody removes, a runtime that is replaced.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks
from tests.daemon import Daemon, running
from tests.images.registry import Registry
from tests.kubelet import kubelet
from tests.kubelet.inside import cgroups_of, monitor_of, pid_of
from tests.kubelet.kubelet import Kubelet
from tests.kubelet.manifests import IDLE, pod, sh
from tests.machine import PATIENCE
from tests.parts.build import program


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A runtime of the test's own that it may replace."""
    found = shutil.which("runc") or "/usr/sbin/runc"
    return Path(shutil.copy(found, tmp_path / "runc"))


@pytest.fixture
def own_daemon(prepared_machine: None, image_registry: Registry, runtime: Path) -> Iterator[Daemon]:
    overrides = {"": {"default_handler": "own"}, "handlers.own": {"binary": str(runtime)}}
    with running(image_registry, environment={}, overrides=overrides) as daemon:
        yield daemon


@pytest.fixture
def own(own_daemon: Daemon) -> Iterator[Kubelet]:
    with kubelet.running(own_daemon.endpoint, systemd=own_daemon.systemd_cgroups()) as made:
        yield made


@pytest.fixture
def leak_scope() -> leaks.Scope:
    return leaks.Scope()


def test_a_runtime_is_replaced_under_pods_that_live_on(own: Kubelet, runtime: Path) -> None:
    own.apply(pod("older", sh("main", IDLE)))
    own.until_ready("older")
    before = own.container("older", "main")["containerID"]
    fresh = runtime.with_name("fresh")
    shutil.copy(program("runc", "runc"), fresh)
    fresh.rename(runtime)  # as a package does it
    assert own.run("older", "main", "hostname").startswith("older")
    own.apply(pod("newer", sh("main", IDLE)))
    own.until_ready("older", "newer")
    main = own.container("older", "main")
    assert (main["containerID"], main["restartCount"]) == (before, 0)
    own.withdraw("older")
    own.until(lambda: not own.runs("older"), "the older pod is gone")


def test_a_container_whose_monitor_is_killed_is_as_it_was_or_started_again(
    own: Kubelet, own_daemon: Daemon
) -> None:
    own.apply(pod("alone", sh("main", f"echo here; {IDLE}"), sh("other", IDLE)))
    own.until_ready("alone")
    id_ = own.container("alone", "main")["containerID"]
    process, other = pid_of(own_daemon, id_), own.container("alone", "other")["containerID"]
    os.kill(monitor_of(own_daemon, id_), signal.SIGKILL)
    assert own.run("alone", "main", "hostname").startswith("alone")
    assert own.container("alone", "main")["containerID"] == id_
    # The end of one without a monitor is seen, though its code is lost.
    os.kill(process, signal.SIGKILL)
    own.until(lambda: own.container("alone", "main").get("restartCount") == 1, "it is started again")
    own.until_ready("alone")
    assert own.container("alone", "other")["containerID"] == other
    own.until(lambda: own.logs("alone", "main") == "here\n", "the new one has a log")


def test_a_cgroup_that_somebody_removes_does_not_keep_its_pod(own: Kubelet, own_daemon: Daemon) -> None:
    own.apply(pod("bare", sh("main", "exec sleep 1000000"), sh("other", IDLE)))  # sleep is to be killed
    own.until_ready("bare")
    groups = cgroups_of(pid_of(own_daemon, own.container("bare", "main")["containerID"]))
    assert groups
    for group in groups:
        for inner in sorted(group.rglob("*"), reverse=True):
            if inner.is_dir():
                empty(inner)
        empty(group)
    assert not any(group.exists() for group in groups)
    assert own.status("bare")["phase"] == "Running"
    own.apply(pod("next", sh("main", IDLE)))
    own.until_ready("next")
    own.withdraw("bare")
    own.until(lambda: not own.runs("bare"), "the pod is gone")


def empty(group: Path) -> None:
    """Move what runs in a group to the top of its hierarchy and remove it."""
    top = next(parent for parent in group.parents if os.path.ismount(parent))
    deadline = time.monotonic() + 10 * PATIENCE
    while group.exists():  # its processes start others and end
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (top / "cgroup.procs").write_text(pid)
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
