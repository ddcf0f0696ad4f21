"""What happens to a node beside kubelet harms no pod more than it must: a monitor that is killed, a cgroup
that somebody removes, a runtime that is replaced, a pod that is over its memory, a disk that is full or
cannot be written, CNI plugins that are away.
"""

from __future__ import annotations

import contextlib
import errno
import json
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
from tests.kubelet.disk import fill, mounted, read_only, writable
from tests.kubelet.inside import cgroups_of, monitor_of, pid_of
from tests.kubelet.kubelet import Kubelet
from tests.kubelet.manifests import IDLE, pod, sh
from tests.machine import PATIENCE
from tests.parts.build import program

UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()
MEMORY = "memory.max" if UNIFIED else "memory.limit_in_bytes"


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


def test_a_pod_over_its_memory_loses_what_took_it_and_no_monitor(own: Kubelet, own_daemon: Daemon) -> None:
    """kubelet gives each container the pod's limit: together they come to it before either does alone."""
    limit = 48 << 20
    some = "x=$(head -c 1000000 /dev/zero | tr '\\0' x); x=$x$x$x$x$x$x$x$x"
    hungry = sh("main", f"until [ -e /go ]; do sleep 0.1; done; {some}; while :; do x=$x$x; done")
    memory = {"limits": {"memory": str(limit)}, "requests": {"memory": str(limit)}}
    own.apply(pod("tight", hungry, sh("other", f"{some}; {IDLE}"), restartPolicy="Never", resources=memory))
    own.until_ready("tight")
    main, other = (own.container("tight", name)["containerID"] for name in ("main", "other"))
    groups = cgroups_of(pid_of(own_daemon, main))
    (group,) = [one for one in groups if MEMORY in {path.name for path in one.iterdir()}]
    of_pod = group.parent
    assert int((of_pod / MEMORY).read_text()) == limit
    monitors = {name: monitor_of(own_daemon, id_) for name, id_ in (("main", main), ("other", other))}
    assert not any(of_pod in one.parents for pid in monitors.values() for one in cgroups_of(pid))
    own.run("tight", "main", "touch", "/go")
    own.until(lambda: "terminated" in own.container("tight", "main").get("state", {}), "main has ended")
    end = own.container("tight", "main")["state"]["terminated"]
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)  # as only its monitor can tell
    assert stopped_at_its_limit(of_pod)
    assert monitor_of(own_daemon, other) == monitors["other"]
    assert own.container("tight", "other")["containerID"] == other
    assert own.run("tight", "other", "hostname").startswith("tight")


def stopped_at_its_limit(group: Path) -> bool:
    """Whether the limit of the group itself, and not of one below, has been in the way."""
    if not UNIFIED:
        return int((group / "memory.failcnt").read_text()) > 0
    counts = dict(line.split() for line in (group / "memory.events.local").read_text().splitlines())
    return int(counts["oom"]) > 0


def test_a_full_disk_keeps_new_pods_waiting_and_harms_none_that_run(
    prepared_machine: None, image_registry: Registry, tmp_path: Path
) -> None:
    with (
        mounted(tmp_path, 256 << 20) as disk,
        running(image_registry, environment={}, overrides={"": {"state_dir": str(disk / "state")}}) as daemon,
        kubelet.running(daemon.endpoint, systemd=daemon.systemd_cgroups()) as own,
    ):
        own.apply(pod("older", sh("main", IDLE)))
        own.until_ready("older")
        before = own.container("older", "main")["containerID"]
        filled = disk / "filled"
        fill(filled)
        own.apply(pod("newer", sh("main", IDLE)))
        own.until(lambda: "disk is full" in own.log, "kubelet is told why")
        assert own.run("older", "main", "hostname").startswith("older")
        daemon.kill()
        daemon.start()
        own.until(lambda: answers(own), "kubelet speaks with the daemon again")
        filled.unlink()
        own.until_ready("older", "newer")
        main = own.container("older", "main")
        assert (main["containerID"], main["restartCount"]) == (before, 0)


def test_a_state_that_cannot_be_written_keeps_new_pods_waiting_and_loses_no_end(
    prepared_machine: None, image_registry: Registry, tmp_path: Path
) -> None:
    """crispd is away when it happens: a file system with a file open for writing cannot be made read-only."""
    told = sh("main", "trap 'exit 3' TERM; while :; do sleep 0.2; done")
    with (
        mounted(tmp_path, 256 << 20) as disk,
        running(image_registry, environment={}, overrides={"": {"state_dir": str(disk / "state")}}) as daemon,
        kubelet.running(daemon.endpoint, systemd=daemon.systemd_cgroups()) as own,
        contextlib.ExitStack() as cure,
    ):
        own.apply(pod("older", sh("main", IDLE)))
        own.apply(pod("leaves", sh("main", IDLE)))
        for name in ("unseen", "seen"):  # by the daemon, while it happens
            own.apply(pod(name, told, restartPolicy="Never"))
        own.until_ready("older", "leaves", "unseen", "seen")
        containers = {name: own.container(name, "main")["containerID"] for name in own.pods()}
        pids = {name: pid_of(daemon, id_) for name, id_ in containers.items()}
        daemon.kill()
        read_only(disk)
        cure.callback(writable, disk)
        os.kill(pids["unseen"], signal.SIGTERM)
        daemon.start()
        own.until(lambda: answers(own), "kubelet speaks with the daemon")
        own.apply(pod("newer", sh("main", IDLE)))
        own.until(lambda: "make its file system writable again" in own.log, "kubelet is told why")
        os.kill(pids["seen"], signal.SIGTERM)
        own.until(lambda: code(own, "unseen") == code(own, "seen") == 3, "the ends are seen")
        own.withdraw("leaves")
        own.until(lambda: not Path(f"/proc/{pids['leaves']}").exists(), "a pod is ended all the same")
        daemon.kill()
        daemon.start()
        own.until(lambda: answers(own), "kubelet speaks with the daemon again")
        cure.close()
        own.until_ready("older", "newer")
        own.until(lambda: not own.runs("leaves"), "the pod is gone")
        daemon.restart()
        own.until(lambda: answers(own), "kubelet speaks with the daemon once more")
        main = own.container("older", "main")
        assert (main["containerID"], main["restartCount"]) == (containers["older"], 0)
        assert [own.status(name)["phase"] for name in ("unseen", "seen")] == ["Failed"] * 2
        assert [code(own, name) for name in ("unseen", "seen")] == [3, 3]


def code(own: Kubelet, name: str) -> int | None:
    """The exit code of a pod's only container; None while it runs."""
    found: int | None = own.container(name, "main").get("state", {}).get("terminated", {}).get("exitCode")
    return found


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A directory of CNI plugins of the test's own that it may take away."""
    shutil.copytree("/usr/lib/cni", tmp_path / "cni")
    return tmp_path / "cni"


def test_without_cni_plugins_pods_live_and_what_is_owed_is_paid_when_they_are_back(
    prepared_machine: None, image_registry: Registry, plugins: Path, tmp_path: Path
) -> None:
    overrides = {"network": {"builtin": False, "bin_dirs": [str(plugins)]}}
    with running(image_registry, environment={}, overrides=overrides) as daemon:
        leases = configure(daemon, tmp_path)
        with kubelet.running(daemon.endpoint, systemd=daemon.systemd_cgroups()) as own:
            own.apply(pod("older", sh("main", IDLE)))
            own.apply(pod("leaves", sh("main", IDLE)))
            own.until_ready("older", "leaves")
            before = own.container("older", "main")["containerID"]
            address, owed = (own.status(name)["podIP"] for name in ("older", "leaves"))
            assert held(leases) == {address, owed}
            gone = pid_of(daemon, own.container("leaves", "main")["containerID"])
            away = plugins.rename(tmp_path / "away")
            own.apply(pod("newer", sh("main", IDLE)))
            own.until(lambda: f"plugin bridge is in none of {plugins}" in own.log, "kubelet is told why")
            own.withdraw("leaves")
            own.until(lambda: not Path(f"/proc/{gone}").exists(), "a pod is ended all the same")
            own.until(lambda: not own.runs("leaves"), "nothing calls it ready")
            daemon.kill()
            daemon.start()
            own.until(lambda: answers(own), "commands run in the other")
            assert address in own.run("older", "main", "ip", "-4", "addr", "show", "dev", "eth0")
            assert held(leases) == {address, owed}
            away.rename(plugins)
            own.until_ready("older", "newer")
            main = own.container("older", "main")
            assert (main["containerID"], main["restartCount"]) == (before, 0)
            newer = own.status("newer")["podIP"]
            own.until(lambda: held(leases) == {address, newer}, "the DEL that was owed is paid")
            for name in ("older", "newer"):
                own.withdraw(name)
            own.until(lambda: held(leases) == set(), "no address is held")


def configure(daemon: Daemon, directory: Path) -> Path:
    """Write a configuration of the plugin bridge as a cluster's network does; where its leases lie."""
    ipam = {
        "type": "host-local",
        "dataDir": str(directory / "leases"),
        "ranges": [[{"subnet": daemon.subnet}]],
    }
    bridge = {"type": "bridge", "bridge": daemon.bridge, "isGateway": True, "ipam": ipam}
    document = {"cniVersion": "1.0.0", "name": daemon.bridge, "plugins": [bridge]}
    (daemon.directory / "net.d/10-pods.conflist").write_text(json.dumps(document))
    return directory / "leases" / daemon.bridge


def held(leases: Path) -> set[str]:
    """The addresses that host-local holds for pods; beside them lie its lock and the last one given."""
    return {path.name for path in leases.iterdir() if path.name[0].isdigit()}


def answers(own: Kubelet) -> bool:
    """Whether a command runs in the pod older; kubelet waits a few seconds before it connects again."""
    try:
        return own.run("older", "main", "hostname").startswith("older")
    except RuntimeError as error:
        if "code = Unavailable" not in str(error):
            raise
        return False


def empty(group: Path) -> None:
    """Move what runs in a group to the top of its hierarchy and remove it."""
    top = next(parent for parent in group.parents if os.path.ismount(parent))
    deadline = time.monotonic() + 10 * PATIENCE
    while group.exists():  # its processes start others and end; systemd removes a scope that has none
        for pid in processes(group):
            with contextlib.suppress(ProcessLookupError):
                (top / "cgroup.procs").write_text(pid)
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise


def processes(group: Path) -> list[str]:
    """The pids of a group's processes; none once it is gone."""
    try:
        return (group / "cgroup.procs").read_text().split()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return []
