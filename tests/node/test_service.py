"""crispd as a service of systemd: installed as an operator does it, and pods that outlive what is done to
it.

Runs in the virtual machine alone (`tests/node/run.sh tests/node`): it takes the machine's own /opt/crisp,
/run/crisp and /etc/crisp.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.proto import cri_pb2
from tests import leaks
from tests.daemon import TREE
from tests.images.registry import Registry
from tests.node.operating import configure, process, pull, remove_all_pods, run, runtime, start, works

pytestmark = pytest.mark.skipif(
    "NODE_BOOT" not in os.environ, reason="only in the virtual machine: tests/node/run.sh tests/node"
)


@pytest.fixture
def leak_scope() -> leaks.Scope:
    return leaks.Scope(expected=("*",))  # the service stays as long as the module's tests do


def shown(*properties: str) -> list[str]:
    asked = [f"--property={name}" for name in properties]
    text = run("systemctl", "show", *asked, "crispd")
    values = dict(line.split("=", 1) for line in text.splitlines())
    return [values[name] for name in properties]


@pytest.fixture(scope="module")
def service(prepared_machine: None, image_registry: Registry) -> Iterator[None]:
    run("sh", TREE / "deploy/install.sh", "--no-packages", "--wheels", "/opt/wheels", limit=1500)
    configure(image_registry)
    run("systemctl", "enable", "--now", "crispd")
    yield
    remove_all_pods()
    run("systemctl", "disable", "--now", "crispd")


@pytest.fixture(scope="module")
def container(service: None) -> str:
    """The id of a container that runs, in a pod below a slice as kubelet names it."""
    pull()
    _, made = start("steady", "sleep", "100000")
    return made


def test_the_unit_is_as_a_runtime_needs_it(service: None) -> None:
    wanted = {
        "Type": "notify",
        "NotifyAccess": "main",
        "KillMode": "process",
        "Delegate": "yes",
        "OOMScoreAdjust": "-999",
        "LimitNOFILE": "1048576",
        "ActiveState": "active",
    }
    assert dict(zip(wanted, shown(*wanted), strict=True)) == wanted
    told = runtime().RuntimeConfig(cri_pb2.RuntimeConfigRequest(), timeout=60)
    assert told.linux.cgroup_driver == cri_pb2.SYSTEMD


def test_the_scope_of_a_container_is_systemds_own(container: str) -> None:
    (scope,) = Path("/sys/fs/cgroup").rglob(f"crisp-{container}.scope")
    assert scope.parent.name == "kubepods-besteffort-podsteady.slice"
    assert run("systemctl", "is-active", scope.name).strip() == "active"
    monitors = Path("/sys/fs/cgroup/crisp.slice/crisp-monitors.slice")
    assert any(path.read_text().strip() for path in monitors.rglob("cgroup.procs"))


@pytest.mark.parametrize("what", ["restart", "kill", "reload", "stop and start"])
def test_a_container_does_not_notice(what: str, container: str) -> None:
    before = process(container)
    if what == "restart":
        run("systemctl", "restart", "crispd")
    elif what == "kill":
        (pid,) = shown("MainPID")
        ended = os.pidfd_open(int(pid))
        signal.pidfd_send_signal(ended, signal.SIGKILL)
        os.close(ended)
        run("sh", "-c", "until [ $(systemctl show -P MainPID crispd) != 0 ]; do sleep 0.1; done", limit=60)
        run("sh", "-c", "until systemctl is-active --quiet crispd; do sleep 0.1; done", limit=120)
    elif what == "reload":
        run("systemctl", "daemon-reload")
    else:
        run("systemctl", "stop", "crispd")
        assert Path(f"/proc/{before}").exists()
        run("systemctl", "start", "crispd")
    assert process(container) == before
    assert works(container)
