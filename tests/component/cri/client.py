"""A kubelet of few words: pods and containers through the CRI socket of a daemon of the tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.proto import cri_pb2
from tests.daemon import CALL_LIMIT, Daemon
from tests.images import catalogue
from tests.machine import PATIENCE

SLEEP = ("sleep", "1000")
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()
_V1 = {
    "period": ("cpu", "cpu.cfs_period_us"),
    "quota": ("cpu", "cpu.cfs_quota_us"),
    "shares": ("cpu", "cpu.shares"),
    "memory": ("memory", "memory.limit_in_bytes"),
    "both": ("memory", "memory.memsw.limit_in_bytes"),
    "cpus": ("cpuset", "cpuset.cpus"),
}
_SHARES = {"20": "512", "59": "512"}
"""cpu.weight -> shares, of those that tests ask for, by the older and the newer formula of the runtimes."""
_numbers = itertools.count()


@dataclass(slots=True)
class Client:
    """Each pod gets a cgroup parent of its own below the daemon's, as kubelet gives it."""

    daemon: Daemon
    runtime: Any = field(init=False)
    images: Any = field(init=False)
    pods: dict[str, Any] = field(default_factory=dict)  # id -> its PodSandboxConfig

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        """Again after the daemon was started anew."""
        self.runtime = self.daemon.runtime()
        self.images = self.daemon.images()

    def call(self, method: str, request: Any) -> Any:
        return getattr(self.runtime, method)(request, timeout=CALL_LIMIT)

    def pull(self, name: str = catalogue.BUSYBOX) -> str:
        request = cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image=name))
        reference: str = self.images.PullImage(request, timeout=CALL_LIMIT).image_ref
        return reference

    def run_pod(
        self,
        *,
        host_network: bool = False,
        labels: Mapping[str, str] | None = None,
        handler: str = "",
        user_namespace: Any = None,
        pid: int = cri_pb2.CONTAINER,
        security: Mapping[str, Any] | None = None,
        **linux: Any,
    ) -> str:
        """`security` has members of the pod's security context, `linux` of its LinuxPodSandboxConfig."""
        name = f"pod{next(_numbers)}"
        linux.setdefault("cgroup_parent", self.daemon.pod_parent(name))
        options = cri_pb2.NamespaceOption(
            network=cri_pb2.NODE if host_network else cri_pb2.POD, pid=pid, userns_options=user_namespace
        )
        config = cri_pb2.PodSandboxConfig(
            metadata=cri_pb2.PodSandboxMetadata(name=name, namespace="default", uid=name, attempt=0),
            labels=labels or {},
            log_directory=str(self.daemon.directory / "logs" / name),
            linux=cri_pb2.LinuxPodSandboxConfig(
                security_context=cri_pb2.LinuxSandboxSecurityContext(
                    namespace_options=options, **(security or {})
                ),
                **linux,
            ),
        )
        id_: str = self.call(
            "RunPodSandbox", cri_pb2.RunPodSandboxRequest(config=config, runtime_handler=handler)
        ).pod_sandbox_id
        self.pods[id_] = config
        return id_

    def create(
        self,
        pod: str,
        name: str = "main",
        command: tuple[str, ...] = SLEEP,
        *,
        image: str = catalogue.BUSYBOX,
        mounts: tuple[Any, ...] = (),
        labels: Mapping[str, str] | None = None,
        readonly_rootfs: bool = False,
        annotations: Mapping[str, str] | None = None,
        cdi_devices: tuple[str, ...] = (),
        security: Mapping[str, Any] | None = None,
        members: Mapping[str, Any] | None = None,
        **resources: Any,
    ) -> str:
        """`security` has members of the security context, `members` others of the ContainerConfig."""
        config = cri_pb2.ContainerConfig(
            metadata=cri_pb2.ContainerMetadata(name=name, attempt=0),
            image=cri_pb2.ImageSpec(image=image),
            command=command,
            mounts=mounts,
            labels=labels or {},
            annotations=annotations or {},
            CDI_devices=[cri_pb2.CDIDevice(name=device) for device in cdi_devices],
            log_path=f"{name}.log",
            linux=cri_pb2.LinuxContainerConfig(
                resources=cri_pb2.LinuxContainerResources(**resources),
                security_context=cri_pb2.LinuxContainerSecurityContext(
                    **{
                        "readonly_rootfs": readonly_rootfs,
                        "namespace_options": self.pods[pod].linux.security_context.namespace_options,
                        **(security or {}),
                    }
                ),
            ),
            **(members or {}),
        )
        request = cri_pb2.CreateContainerRequest(
            pod_sandbox_id=pod, config=config, sandbox_config=self.pods[pod]
        )
        id_: str = self.call("CreateContainer", request).container_id
        return id_

    def start(self, container: str) -> None:
        self.call("StartContainer", cri_pb2.StartContainerRequest(container_id=container))

    def run(self, pod: str, name: str = "main", command: tuple[str, ...] = SLEEP, **wanted: Any) -> str:
        id_ = self.create(pod, name, command, **wanted)
        self.start(id_)
        return id_

    def run_up(self, pod: str, name: str = "main", *, mounts: tuple[Any, ...] = (), **wanted: Any) -> str:
        """`run` a shell that waits; returns once it runs, and no longer the runtime in its place.

        It starts no other program: while a process takes on another one, its environment reads as empty.
        """
        place = self.daemon.directory / f"up{next(_numbers)}"
        os.mkfifo(place)
        place.chmod(0o666)
        up = cri_pb2.Mount(container_path="/up", host_path=str(place))
        id_ = self.run(pod, name, ("sh", "-c", "echo >/up; read never </up"), mounts=(*mounts, up), **wanted)
        place.read_bytes()
        place.unlink()
        return id_

    def stop(self, container: str) -> None:
        self.call("StopContainer", cri_pb2.StopContainerRequest(container_id=container, timeout=0))

    def remove(self, container: str) -> None:
        self.call("RemoveContainer", cri_pb2.RemoveContainerRequest(container_id=container))

    def stop_pod(self, pod: str) -> None:
        self.call("StopPodSandbox", cri_pb2.StopPodSandboxRequest(pod_sandbox_id=pod))

    def remove_pod(self, pod: str) -> None:
        self.call("RemovePodSandbox", cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod))

    def status(self, container: str, *, verbose: bool = False) -> Any:
        request = cri_pb2.ContainerStatusRequest(container_id=container, verbose=verbose)
        return self.call("ContainerStatus", request)

    def exec(self, container: str, *command: str) -> str:
        request = cri_pb2.ExecSyncRequest(container_id=container, cmd=command, timeout=round(30 * PATIENCE))
        answer = self.call("ExecSync", request)
        assert answer.exit_code == 0, (command, answer.stdout, answer.stderr)
        output: str = answer.stdout.decode()
        return output

    def pid(self, container: str) -> int:
        """The first process as the machine has it: the one whose cgroup ends with the container's id."""
        found = [pid for pid in pids() if container in cgroup_text(pid)]
        assert found, f"no process of container {container}"
        return min(found)


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names only


def cgroup_text(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cgroup_file(pid: int, controller: str, name: str) -> Path:
    """A file of the process's cgroup, on version 1 or 2, from what /proc and the mounts say."""
    for line in cgroup_text(pid).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            for mount in Path("/proc/mounts").read_text().splitlines():
                _, point, kind, options, *_ = mount.split()
                if kind == "cgroup" and controller in options.split(","):
                    return Path(point + path) / name
    line = next(line for line in cgroup_text(pid).splitlines() if line.startswith("0::"))
    return Path("/sys/fs/cgroup" + line[3:]) / name


def limits(pid: int) -> dict[str, str]:
    """The limits of the process's cgroup, in version 1's words; `shares` are a weight on version 2."""
    if not UNIFIED:
        return {key: cgroup_file(pid, *where).read_text().strip() for key, where in _V1.items()}
    text = {
        name: cgroup_file(pid, "", name).read_text().strip()
        for name in ("cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "cpuset.cpus")
    }
    quota, period = text["cpu.max"].split()
    return {
        "period": period,
        "quota": "-1" if quota == "max" else quota,
        "shares": _SHARES.get(text["cpu.weight"], f"weight {text['cpu.weight']}"),
        "memory": text["memory.max"],
        "both": "max"
        if text["memory.swap.max"] == "max"
        else str(int(text["memory.max"]) + int(text["memory.swap.max"])),
        "cpus": text["cpuset.cpus"],
    }


def used(pid: int, *, own: bool = False) -> tuple[int, int]:
    """CPU nanoseconds and bytes of memory of the parent of the process's cgroup, its pod's, or of its own."""

    def group(controller: str) -> Path:
        found = cgroup_file(pid, controller, "")
        return found if own else found.parent

    if UNIFIED:
        ((_, microseconds),) = [
            line.split() for line in (group("") / "cpu.stat").read_text().splitlines() if "usage_usec" in line
        ]
        return int(microseconds) * 1000, int((group("") / "memory.current").read_text())
    return (
        int((group("cpuacct") / "cpuacct.usage").read_text()),
        int((group("memory") / "memory.usage_in_bytes").read_text()),
    )
