"""One pod's whole life as a client asks for it, request by request, so that any of them can be repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.proto import cri_pb2 as cri
from tests.daemon import CALL_LIMIT, Daemon
from tests.images import catalogue

# 250 numbered lines four times a second.
NUMBERS = "trap 'exit 3' TERM; i=1; while :; do seq $i $((i + 249)); i=$((i + 250)); usleep 250000; done"
WAITS = 'trap "exit 3" TERM; echo up; sleep 1000 & wait'


@dataclass(slots=True, kw_only=True)
class Life:
    """A pod called `name` with one container that runs `script`."""

    daemon: Daemon
    name: str
    script: str = WAITS
    handler: str = "runc"
    first_id: int = 0  # of the pod's own user namespace on the host; 0 is none
    pod_id: str = ""
    container_id: str = ""
    config: Any = field(init=False)
    container: Any = field(init=False)

    def __post_init__(self) -> None:
        log_directory = self.daemon.directory / "logs" / self.name
        log_directory.mkdir(parents=True, exist_ok=True)
        options = cri.NamespaceOption(pid=cri.CONTAINER)
        if self.first_id:
            mapping = [cri.IDMapping(host_id=self.first_id, container_id=0, length=65536)]
            own = cri.UserNamespace(mode=cri.POD, uids=mapping, gids=mapping)
            options.userns_options.CopyFrom(own)
        self.config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=self.name, namespace="fault", uid=self.name, attempt=0),
            log_directory=str(log_directory),
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=f"/{self.daemon.cgroup_prefix}",
                security_context=cri.LinuxSandboxSecurityContext(namespace_options=options),
            ),
        )
        self.container = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="main", attempt=0),
            image=cri.ImageSpec(image=catalogue.BUSYBOX),
            command=["sh", "-c", self.script],
            log_path="main.log",
            linux=cri.LinuxContainerConfig(
                security_context=cri.LinuxContainerSecurityContext(namespace_options=options)
            ),
        )

    @property
    def log(self) -> Path:
        return Path(self.config.log_directory) / "main.log"

    def start(self) -> None:
        for verb in ("RunPodSandbox", "CreateContainer", "StartContainer"):
            self.ask(verb)

    def ask(self, verb: str) -> None:
        """One request; the same each time it is asked."""
        runtime = self.daemon.runtime()
        match verb:
            case "RunPodSandbox":
                request = cri.RunPodSandboxRequest(config=self.config, runtime_handler=self.handler)
                self.pod_id = runtime.RunPodSandbox(request, timeout=CALL_LIMIT).pod_sandbox_id
            case "CreateContainer":
                made = cri.CreateContainerRequest(
                    pod_sandbox_id=self.pod_id, config=self.container, sandbox_config=self.config
                )
                self.container_id = runtime.CreateContainer(made, timeout=CALL_LIMIT).container_id
            case "StartContainer":
                runtime.StartContainer(
                    cri.StartContainerRequest(container_id=self.container_id), timeout=CALL_LIMIT
                )
            case "StopContainer":
                stop = cri.StopContainerRequest(container_id=self.container_id, timeout=5)
                runtime.StopContainer(stop, timeout=CALL_LIMIT)
            case "RemoveContainer":
                runtime.RemoveContainer(
                    cri.RemoveContainerRequest(container_id=self.container_id), timeout=CALL_LIMIT
                )
            case "StopPodSandbox":
                runtime.StopPodSandbox(
                    cri.StopPodSandboxRequest(pod_sandbox_id=self.pod_id), timeout=CALL_LIMIT
                )
            case "RemovePodSandbox":
                runtime.RemovePodSandbox(
                    cri.RemovePodSandboxRequest(pod_sandbox_id=self.pod_id), timeout=CALL_LIMIT
                )

    def seen(self) -> dict[str, Any]:
        """Ids, states, address and process, as the daemon tells them."""
        runtime = self.daemon.runtime()
        pod = runtime.PodSandboxStatus(
            cri.PodSandboxStatusRequest(pod_sandbox_id=self.pod_id), timeout=CALL_LIMIT
        ).status
        asked = cri.ContainerStatusRequest(container_id=self.container_id, verbose=True)
        answer = runtime.ContainerStatus(asked, timeout=CALL_LIMIT)
        return {
            "pod": pod.id,
            "pod state": cri.PodSandboxState.Name(pod.state),
            "address": pod.network.ip,
            "container": answer.status.id,
            "container state": cri.ContainerState.Name(answer.status.state),
            "started": answer.status.started_at,
            "process": json.loads(answer.info["info"])["pid"],
        }

    def code(self) -> int:
        """The container's exit code, 0 while there is none."""
        asked = cri.ContainerStatusRequest(container_id=self.container_id)
        return int(self.daemon.runtime().ContainerStatus(asked, timeout=CALL_LIMIT).status.exit_code)


def pull(daemon: Daemon) -> None:
    """Bring the image of every `Life`."""
    request = cri.PullImageRequest(image=cri.ImageSpec(image=catalogue.BUSYBOX))
    daemon.images().PullImage(request, timeout=CALL_LIMIT)


def listed(daemon: Daemon) -> tuple[set[str], set[str]]:
    """Ids of all pods and containers."""
    runtime = daemon.runtime()
    pods = runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=CALL_LIMIT).items
    containers = runtime.ListContainers(cri.ListContainersRequest(), timeout=CALL_LIMIT).containers
    return {pod.id for pod in pods}, {container.id for container in containers}


def numbers(log: Path) -> Iterator[int]:
    """The numbers in a log of `NUMBERS`, in order."""
    begun = b""
    with log.open("rb") as lines:
        for line in lines:
            _, stream, tag, text = line.rstrip(b"\n").split(b" ", 3)
            if stream != b"stdout":  # the shell tells of a child that was killed
                continue
            begun += text
            if tag == b"F":  # else a part of a line, which the next one goes on with
                yield int(begun)
                begun = b""


def missing(log: Path) -> tuple[int, list[int]]:
    """How many lines a log of `NUMBERS` has, and the first numbers that are not where they should be."""
    count, wrong = 0, []
    for count, number in enumerate(numbers(log), 1):
        if number != count and len(wrong) < 5:
            wrong.append(number)
    return count, wrong
