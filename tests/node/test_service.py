"""crispd as a service of systemd: installed as an operator does it, and pods that outlive what is done to
it.

Runs in the virtual machine alone (`tests/node/run.sh tests/node`): it takes the machine's own /opt/crisp,
/run/crisp and /etc/crisp.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.proto import cri_pb2, cri_pb2_grpc
from tests import leaks
from tests.daemon import TREE, toml
from tests.images import catalogue
from tests.images.registry import Registry, write_hosts

pytestmark = pytest.mark.skipif(
    "NODE_BOOT" not in os.environ, reason="only in the virtual machine: tests/node/run.sh tests/node"
)

SOCKET = "unix:/run/crisp/crisp.sock"
CERTS = Path("/etc/crisp/certs.d")


@pytest.fixture
def leak_scope() -> leaks.Scope:
    return leaks.Scope(expected=("*",))  # the service stays as long as the module's tests do


def run(*words: str | Path, limit: float = 600) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=limit)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def shown(*properties: str) -> list[str]:
    asked = [f"--property={name}" for name in properties]
    text = run("systemctl", "show", *asked, "crispd")
    values = dict(line.split("=", 1) for line in text.splitlines())
    return [values[name] for name in properties]


def runtime() -> Any:
    return cri_pb2_grpc.RuntimeServiceStub(grpc.insecure_channel(SOCKET))


@pytest.fixture(scope="module")
def service(prepared_machine: None, image_registry: Registry) -> Iterator[None]:
    run("sh", TREE / "deploy/install.sh", "--no-packages", "--wheels", "/opt/wheels", limit=1500)
    write_hosts(CERTS, image_registry)
    settings = {"network": {"builtin": True}, "images": {"registry_dirs": [str(CERTS)]}}
    Path("/etc/crisp/config.toml").write_text(toml(settings))
    run("systemctl", "enable", "--now", "crispd")
    yield
    for pod in runtime().ListPodSandbox(cri_pb2.ListPodSandboxRequest(), timeout=60).items:
        runtime().StopPodSandbox(cri_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=120)
        runtime().RemovePodSandbox(cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=120)
    run("systemctl", "disable", "--now", "crispd")


@pytest.fixture(scope="module")
def container(service: None) -> str:
    """The id of a container that runs, in a pod below a slice as kubelet names it."""
    images = cri_pb2_grpc.ImageServiceStub(grpc.insecure_channel(SOCKET))
    images.PullImage(cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX)), timeout=300)
    pod = cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name="steady", namespace="default", uid="steady"),
        linux=cri_pb2.LinuxPodSandboxConfig(cgroup_parent="kubepods-besteffort-podsteady.slice"),
    )
    calls = runtime()
    id_ = calls.RunPodSandbox(cri_pb2.RunPodSandboxRequest(config=pod), timeout=300).pod_sandbox_id
    config = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="main"),
        image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX),
        command=["sleep", "100000"],
    )
    made = calls.CreateContainer(
        cri_pb2.CreateContainerRequest(pod_sandbox_id=id_, config=config, sandbox_config=pod), timeout=300
    ).container_id
    calls.StartContainer(cri_pb2.StartContainerRequest(container_id=made), timeout=300)
    return str(made)


def process(container: str) -> int:
    """The pid of what runs in the container, by its scope in the kernel."""
    (scope,) = Path("/sys/fs/cgroup").rglob(f"crisp-{container}.scope")
    return int((scope / "cgroup.procs").read_text().split()[0])


def works(container: str) -> bool:
    """Whether a process in it may write to a device, which a reload of systemd's could forbid."""
    command = ["sh", "-c", "echo x >/dev/null && head -c1 /dev/zero"]
    asked = cri_pb2.ExecSyncRequest(container_id=container, cmd=command)
    answer = runtime().ExecSync(asked, timeout=120)
    return bool(answer.exit_code == 0)


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
