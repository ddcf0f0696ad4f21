"""What kubelet asks of a runtime for one pod with one container, and the same for every side."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from api.client import Client
from api.proto import cri_pb2
from benchmarks import place
from benchmarks.images import WORKLOAD
from benchmarks.sides import MARK

GRACE = 30  # seconds, kubelet's default terminationGracePeriodSeconds
_MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
)  # fmt: skip
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_count = itertools.count(1)


@dataclass(slots=True)
class Pod:
    """One pod that was asked for; the ids are empty until they are known."""

    config: cri_pb2.PodSandboxConfig
    handler: str = ""
    sandbox: str = ""
    container: str = ""

    @property
    def group(self) -> str:
        return str(self.config.linux.cgroup_parent)


def _namespaces() -> cri_pb2.NamespaceOption:
    return cri_pb2.NamespaceOption(
        network=cri_pb2.NamespaceMode.POD, pid=cri_pb2.NamespaceMode.CONTAINER, ipc=cri_pb2.NamespaceMode.POD
    )


def pod(top: str, logs: Path, handler: str = "") -> Pod:
    """A new pod of a handler below the cgroup `top`, which is there afterwards, its logs below `logs`."""
    uid = f"{next(_count):08d}-0000-4000-8000-000000000000"
    name = f"bench-{uid}"
    directory = logs / f"default_{name}_{uid}"
    directory.mkdir(parents=True)
    group = f"{top}/burstable/pod{uid}"
    place.make_group(group)
    labels = {
        "io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default",
        "io.kubernetes.pod.uid": uid, "app": "bench",
    }  # fmt: skip
    config = cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name=name, namespace="default", uid=uid, attempt=0),
        hostname=name,
        log_directory=str(directory),
        dns_config=cri_pb2.DNSConfig(
            servers=["10.96.0.10"],
            searches=["default.svc.cluster.local", "svc.cluster.local", "cluster.local"],
            options=["ndots:5"],
        ),
        labels=labels,
        annotations={
            "kubernetes.io/config.seen": "2026-01-01T00:00:00Z",
            "kubernetes.io/config.source": "api",
        },
        linux=cri_pb2.LinuxPodSandboxConfig(
            cgroup_parent=group,
            security_context=cri_pb2.LinuxSandboxSecurityContext(namespace_options=_namespaces()),
        ),
    )
    return Pod(config, handler)


def container(of: Pod) -> cri_pb2.ContainerConfig:
    """Its one container as kubelet writes it: service variables, mounts, limits, no seccomp profile."""
    directory = Path(of.config.log_directory)
    (directory / "main").mkdir(exist_ok=True)
    for name in ("etc-hosts", "termination-log"):
        (directory / name).touch()
    secret = directory / "serviceaccount"
    secret.mkdir(exist_ok=True)
    addresses = {f"SERVICE_{n}_PORT_{n}_TCP_ADDR": f"10.96.0.{n}" for n in range(20)}
    mark, _, value = MARK.partition("=")
    mounts = (
        ("/var/run/secrets/kubernetes.io/serviceaccount", secret, True),
        ("/etc/hosts", directory / "etc-hosts", False),
        ("/dev/termination-log", directory / "termination-log", False),
    )
    return cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="main", attempt=0),
        image=cri_pb2.ImageSpec(image=WORKLOAD, user_specified_image=WORKLOAD),
        envs=[
            cri_pb2.KeyValue(key=key, value=text.encode())
            for key, text in {mark: value, "KUBERNETES_SERVICE_HOST": "10.96.0.1", **addresses}.items()
        ],
        mounts=[
            cri_pb2.Mount(container_path=inside, host_path=str(outside), readonly=readonly)
            for inside, outside, readonly in mounts
        ],
        labels={**of.config.labels, "io.kubernetes.container.name": "main"},
        annotations={
            "io.kubernetes.container.hash": "7e0c9a5d",
            "io.kubernetes.container.restartCount": "0",
            "io.kubernetes.container.terminationMessagePath": "/dev/termination-log",
            "io.kubernetes.container.terminationMessagePolicy": "File",
            "io.kubernetes.pod.terminationGracePeriod": str(GRACE),
        },
        log_path="main/0.log",
        linux=cri_pb2.LinuxContainerConfig(
            resources=cri_pb2.LinuxContainerResources(
                cpu_period=100_000,
                cpu_quota=50_000,
                cpu_shares=102,
                memory_limit_in_bytes=128 << 20,
                oom_score_adj=994,
            ),
            security_context=cri_pb2.LinuxContainerSecurityContext(
                namespace_options=_namespaces(),
                run_as_user=cri_pb2.Int64Value(value=0),
                masked_paths=_MASKED,
                readonly_paths=_READ_ONLY,
            ),
        ),
    )


START = ("run pod", "create", "start")
END = ("stop", "remove", "stop pod", "remove pod")
"""The stages of a pod's life, as `start` and `end` call them."""


class Stopwatch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    def __call__(self, stage: str, call: Callable[[], object]) -> None:
        began = perf_counter()
        call()
        self.taken[stage] = (perf_counter() - began) * 1000


def start(client: Client, one: Pod, watch: Stopwatch | None = None) -> None:
    """RunPodSandbox, CreateContainer, StartContainer."""
    watch = watch or Stopwatch()
    config = container(one)

    def run() -> None:
        request = cri_pb2.RunPodSandboxRequest(config=one.config, runtime_handler=one.handler)
        one.sandbox = client.runtime.RunPodSandbox(request).pod_sandbox_id

    def create() -> None:
        request = cri_pb2.CreateContainerRequest(
            pod_sandbox_id=one.sandbox, config=config, sandbox_config=one.config
        )
        one.container = client.runtime.CreateContainer(request).container_id

    watch("run pod", run)
    watch("create", create)
    watch(
        "start",
        lambda: client.runtime.StartContainer(cri_pb2.StartContainerRequest(container_id=one.container)),
    )


def execute(client: Client, one: Pod, watch: Stopwatch) -> None:
    """ExecSync of `true`."""
    request = cri_pb2.ExecSyncRequest(container_id=one.container, cmd=["/bin/true"], timeout=10)

    def run() -> None:
        answer = client.runtime.ExecSync(request)
        assert answer.exit_code == 0, answer

    watch("exec", run)


def life(client: Client, one: Pod, *, execs: int) -> tuple[Stopwatch, list[float]]:
    """`start`, so many times `execute`, and `end`; the execs' milliseconds stand by themselves."""
    watch, taken = Stopwatch(), []
    start(client, one, watch)
    for _ in range(execs):
        each = Stopwatch()
        execute(client, one, each)
        taken.append(each.taken["exec"])
    end(client, one, watch)
    return watch, taken


def end(client: Client, one: Pod, watch: Stopwatch | None = None, *, grace: int = GRACE) -> None:
    """StopContainer with kubelet's grace, RemoveContainer, StopPodSandbox, RemovePodSandbox."""
    watch = watch or Stopwatch()
    runtime = client.runtime
    watch(
        "stop",
        lambda: runtime.StopContainer(
            cri_pb2.StopContainerRequest(container_id=one.container, timeout=grace)
        ),
    )
    watch(
        "remove", lambda: runtime.RemoveContainer(cri_pb2.RemoveContainerRequest(container_id=one.container))
    )
    watch(
        "stop pod", lambda: runtime.StopPodSandbox(cri_pb2.StopPodSandboxRequest(pod_sandbox_id=one.sandbox))
    )
    watch(
        "remove pod",
        lambda: runtime.RemovePodSandbox(cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=one.sandbox)),
    )


def pull(client: Client, image: str) -> float:
    """PullImage; seconds."""
    began = perf_counter()
    client.image.PullImage(cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image=image)), timeout=600)
    return perf_counter() - began


def forget(client: Client, image: str) -> None:
    """RemoveImage."""
    client.image.RemoveImage(cri_pb2.RemoveImageRequest(image=cri_pb2.ImageSpec(image=image)))
