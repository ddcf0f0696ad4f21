"""How tests act on crispd as the machine's service: its settings, kubelet's socket, a container's process."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import grpc

from api.proto import cri_pb2, cri_pb2_grpc
from tests.daemon import toml
from tests.images import catalogue
from tests.images.registry import Registry, write_hosts

SOCKET = "unix:/run/crisp/crisp.sock"
CERTS = Path("/etc/crisp/certs.d")


def run(*words: str | Path, limit: float = 600) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=limit)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def configure(registry: Registry, *, builtin: bool = True) -> None:
    """The daemon's own network unless told otherwise, and the usual image names pulled from the registry."""
    write_hosts(CERTS, registry)
    settings: dict[str, dict[str, Any]] = {
        "network": {"builtin": builtin},
        "images": {"registry_dirs": [str(CERTS)]},
    }
    Path("/etc/crisp/config.toml").write_text(toml(settings))


def runtime() -> Any:
    return cri_pb2_grpc.RuntimeServiceStub(grpc.insecure_channel(SOCKET))


def pull() -> None:
    images = cri_pb2_grpc.ImageServiceStub(grpc.insecure_channel(SOCKET))
    images.PullImage(cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX)), timeout=300)


def start(name: str, *command: str, log_directory: str = "") -> tuple[str, str]:
    """A pod below a slice as kubelet names it and a container that runs in it: their ids."""
    pod = cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name=name, namespace="default", uid=name),
        linux=cri_pb2.LinuxPodSandboxConfig(cgroup_parent=f"kubepods-besteffort-pod{name}.slice"),
        log_directory=log_directory,
    )
    calls = runtime()
    id_ = calls.RunPodSandbox(cri_pb2.RunPodSandboxRequest(config=pod), timeout=300).pod_sandbox_id
    config = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="main"),
        image=cri_pb2.ImageSpec(image=catalogue.BUSYBOX),
        command=command,
        log_path="main.log" if log_directory else "",
    )
    made = calls.CreateContainer(
        cri_pb2.CreateContainerRequest(pod_sandbox_id=id_, config=config, sandbox_config=pod), timeout=300
    ).container_id
    calls.StartContainer(cri_pb2.StartContainerRequest(container_id=made), timeout=300)
    return str(id_), str(made)


def remove_all_pods() -> None:
    for pod in runtime().ListPodSandbox(cri_pb2.ListPodSandboxRequest(), timeout=60).items:
        runtime().StopPodSandbox(cri_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=120)
        runtime().RemovePodSandbox(cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=120)


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
