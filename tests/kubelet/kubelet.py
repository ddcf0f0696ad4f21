"""A real kubelet of the tests' own: it runs the static pods of a directory, and is a cluster's where told so.

Drives it from outside: its process, its manifests, its HTTPS API. Everything it writes is below one
directory, but the cgroups of pods and links to their logs, which `purge` takes away, and some of the
machine's sysctls, which are set back.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from api.proto import cri_pb2, cri_pb2_grpc
from tests import machine
from tests.parts.build import program

NODE = "testnode"  # kubelet appends it to the names of static pods
READY_LIMIT = 60.0 * machine.PATIENCE  # seconds from the start of the process to a healthy answer
POD_LIMIT = 90.0 * machine.PATIENCE  # seconds that a state of a pod is waited for
STOP_LIMIT = 60.0 * machine.PATIENCE
ASK_LIMIT = 30.0 * machine.PATIENCE  # seconds that an answer of kubelet's or crispd's may take
UNASKING = ("kubelet-1.30",)
"""Parts that do not ask the runtime for the driver of cgroups: kubelet does since 1.31."""

LOOK_AGAIN = 0.1  # seconds; kubelet offers nothing to wait on

LINKS = Path("/var/log/containers")
"""Where kubelet links each container's log, whatever directories it is told."""

SYSCTLS = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
)  # fmt: skip
"""What it sets for the whole machine when it starts."""


_count = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What a node of a cluster has: the way to the API, the address where the API finds it, labels."""

    kubeconfig: Path
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def words(self) -> list[str]:
        labels = ",".join(f"{key}={value}" for key, value in self.labels.items())
        return [f"--kubeconfig={self.kubeconfig}", f"--node-ip={self.address}", f"--node-labels={labels}"]


@dataclass(slots=True, kw_only=True)
class Kubelet:
    """One kubelet on a CRI socket ("unix://..."); `settings` go over its configuration file's.

    `part` is the entry of tests/parts/table.py that has the program. Below `cgroup_root` are the cgroups of
    its pods; with `systemd` it is a slice of that name.
    """

    directory: Path
    endpoint: str
    cgroup_root: str
    systemd: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    membership: Membership | None = None
    part: str = "kubelet"
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    _tls: ssl.SSLContext | None = None

    @property
    def manifests(self) -> Path:
        return self.directory / "manifests"

    @property
    def log(self) -> str:
        return (self.directory / "kubelet.log").read_text(errors="replace")

    @property
    def address(self) -> str:
        """Where its own API is served."""
        return self.membership.address if self.membership else "127.0.0.1"

    def configuration(self) -> dict[str, Any]:
        """config.yaml; JSON is YAML."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "port": self.port,
            "healthzPort": 0,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "staticPodPath": str(self.manifests),
            "podLogsDir": str(self.directory / "pod-logs"),
            "containerRuntimeEndpoint": self.endpoint,
            "failSwapOn": False,
            "failCgroupV1": False,
            "cgroupRoot": self.cgroup_root,
            "enforceNodeAllocatable": [],
            "fileCheckFrequency": "1s",
            "syncFrequency": "5s",
            "resolvConf": "",
            "evictionHard": {"memory.available": "1Mi"},
            "imageGCHighThresholdPercent": 100,
            "volumePluginDir": str(self.directory / "plugins"),
            "logging": {"verbosity": 2},
            **self.settings,
        }

    def start(self) -> None:
        """Start the process; return when it says that it is healthy."""
        self.manifests.mkdir(exist_ok=True)
        if not self.port:
            self.port = free_port()
        config = self.directory / "config.yaml"
        config.write_text(json.dumps(self.configuration(), indent=1))
        with (self.directory / "kubelet.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    program(self.part, "kubelet"),
                    f"--config={config}", f"--root-dir={self.directory / 'root'}",
                    f"--cert-dir={self.directory / 'pki'}", f"--hostname-override={NODE}",
                    *(self.membership.words() if self.membership else ()),
                ],
                env={"PATH": machine.SYSTEM_PATH, "HOME": str(self.directory)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.until(self._healthy, "kubelet is healthy", READY_LIMIT)

    def _healthy(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"kubelet ended with {self.process.returncode}:\n{self.log[-6000:]}")
        try:
            return self.get("/healthz") == b"ok"
        except (OSError, RuntimeError):
            return False

    def stop(self) -> None:
        """SIGTERM and reap; its pods stay."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def connection(self) -> http.client.HTTPSConnection:
        """One to its API that may ask many times, and that its user closes."""
        if self._tls is None:  # its certificate is signed by itself
            self._tls = ssl.create_default_context()
            self._tls.check_hostname = False
            self._tls.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(self.address, self.port, timeout=ASK_LIMIT, context=self._tls)

    def get(self, path: str, over: http.client.HTTPSConnection | None = None) -> bytes:
        return self._ask("GET", path, over)

    def _ask(self, method: str, path: str, over: http.client.HTTPSConnection | None = None) -> bytes:
        """Over a connection of its own unless there is one."""
        with contextlib.nullcontext(over) if over else contextlib.closing(self.connection()) as connection:
            connection.request(method, path)
            response = connection.getresponse()
            content = response.read()
        if response.status != 200:
            raise RuntimeError(f"kubelet {method} {path}: {response.status} {content[:1000]!r}")
        return content

    def run(self, pod: str, container: str, *command: str) -> str:
        """The output of a command in a container, by ExecSync. Raises RuntimeError if it fails."""
        query = urllib.parse.urlencode({"cmd": " ".join(command)})
        return self._ask("POST", f"/run/default/{pod}-{NODE}/{container}?{query}").decode()

    def logs(self, pod: str, container: str) -> str:
        return self.get(f"/containerLogs/default/{pod}-{NODE}/{container}").decode()

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Write a static pod's manifest, whole or not at all."""
        self.publish(self.draft(manifest))

    def draft(self, manifest: Mapping[str, Any]) -> Path:
        """Write a manifest where kubelet does not look; `publish` shows it."""
        scratch = self.directory / f"{manifest['metadata']['name']}.json"
        scratch.write_text(json.dumps(manifest))
        return scratch

    def publish(self, draft: Path) -> None:
        draft.rename(self.manifests / draft.name)

    def withdraw(self, name: str) -> None:
        (self.manifests / f"{name}.json").unlink(missing_ok=True)

    def pods(self, over: http.client.HTTPSConnection | None = None) -> dict[str, dict[str, Any]]:
        """Every pod that kubelet knows, by the name in its manifest."""
        items = json.loads(self.get("/pods", over))["items"] or []
        return {item["metadata"]["name"].removesuffix(f"-{NODE}"): item for item in items}

    def status(self, name: str) -> dict[str, Any]:
        """The pod's status, empty while kubelet does not know it."""
        found: dict[str, Any] = self.pods().get(name, {}).get("status", {})
        return found

    def container(self, pod: str, name: str) -> dict[str, Any]:
        """One container's status, of whatever kind; empty while there is none."""
        status = self.status(pod)
        every = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        return next((entry for entry in every if entry["name"] == name), {})

    def until(
        self, holds: Callable[[], bool], what: str, limit: float = POD_LIMIT, *, pause: float = LOOK_AGAIN
    ) -> None:
        """Wait for a state; a TimeoutError says what kubelet knows instead."""
        deadline = time.monotonic() + limit
        while not holds():
            if time.monotonic() > deadline:
                known = ""
                with contextlib.suppress(OSError, RuntimeError):
                    known = json.dumps({k: v.get("status") for k, v in self.pods().items()}, indent=1)
                raise TimeoutError(f"not within {limit:g} s: {what}\n{known}\n{self.log[-4000:]}")
            time.sleep(pause)

    def until_ready(self, *names: str, limit: float = POD_LIMIT) -> None:
        def ready() -> bool:
            pods = self.pods()
            return all(_is_ready(pods.get(name, {}).get("status", {})) for name in names)

        self.until(ready, f"ready: {', '.join(names)}", limit)

    def runs(self, name: str = "") -> bool:
        """Whether the runtime says that a pod of that name, or any, is ready."""
        with grpc.insecure_channel(self.endpoint) as channel:
            runtime = cri_pb2_grpc.RuntimeServiceStub(channel)
            listed: Any = runtime.ListPodSandbox(cri_pb2.ListPodSandboxRequest(), timeout=ASK_LIMIT)
        ready = {pod.metadata.name for pod in listed.items if pod.state == cri_pb2.SANDBOX_READY}
        return f"{name}-{NODE}" in ready if name else bool(ready)

    def clear(self) -> None:
        """Withdraw every pod and wait until nothing of them runs and kubelet has put away their volumes.

        What has ended stays in the runtime until kubelet collects it, a minute later.
        """
        for path in self.manifests.iterdir():
            path.unlink()
        self.until(lambda: not self.pods() and not self.runs(), "no pod is left", STOP_LIMIT)
        kept = self.directory / "root/pods"
        self.until(
            lambda: not kept.is_dir() or not any(kept.iterdir()), "no pod's volumes are left", STOP_LIMIT
        )

    def purge(self) -> None:
        """Whatever it may have left: its process, mounts, cgroups, links, directories."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed(points):
            if point.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        if self.systemd:
            subprocess.run(["systemctl", "stop", _slice(self.cgroup_root)], check=False, capture_output=True)
        else:
            for top in _hierarchies():
                for directory, _, _ in os.walk(top / self.cgroup_root.lstrip("/"), topdown=False):
                    with contextlib.suppress(OSError):
                        Path(directory).rmdir()
        for link in LINKS.glob("*.log"):
            with contextlib.suppress(OSError):  # no link, or its kubelet has collected it
                if str(link.readlink()).startswith(f"{self.directory}/"):
                    link.unlink()
        shutil.rmtree(self.directory, ignore_errors=True)


def _is_ready(status: Mapping[str, Any]) -> bool:
    conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", ())}
    return status.get("phase") == "Running" and conditions.get("Ready") == "True"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _slice(root: str) -> str:
    return f"{root.lstrip('/')}.slice"


def _enable_controllers() -> None:
    """Give every controller to the groups below the root, as a runtime does with its first container.

    kubelet asks for all of them in its own root, and systemd gives no hugetlb by itself.
    """
    top = Path("/sys/fs/cgroup")
    wanted = " ".join(f"+{name}" for name in (top / "cgroup.controllers").read_text().split())
    (top / "cgroup.subtree_control").write_text(wanted)


def _hierarchies() -> Iterator[Path]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split(" ")[0] in ("cgroup", "cgroup2"):
            yield Path(left.split(" ")[4])


@contextlib.contextmanager
def running(
    endpoint: str,
    *,
    systemd: bool = False,
    settings: Mapping[str, Any] | None = None,
    membership: Membership | None = None,
    part: str = "kubelet",
) -> Iterator[Kubelet]:
    """A kubelet that serves within the block; at the end its pods are withdrawn and nothing of it stays."""
    told = {"cgroupDriver": "systemd"} if systemd and part in UNASKING else {}
    own = Kubelet(
        directory=Path(tempfile.mkdtemp(prefix="kubelet-")),
        endpoint=endpoint,
        cgroup_root=own_root(),
        systemd=systemd,
        settings={**told, **(settings or {})},
        membership=membership,
        part=part,
    )
    with serving(own):
        yield own
        own.clear()


def own_root(below: str = "") -> str:
    """Where one kubelet's pods have their cgroups: it removes those of pods that it does not know."""
    return f"{below}/kubetest{os.getpid()}n{next(_count)}"


@contextlib.contextmanager
def serving(own: Kubelet) -> Iterator[None]:
    """It serves within the block. Its pods are its user's to end; nothing else of it stays."""
    own.directory.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_sysctls_kept())
        if not LINKS.exists():
            stack.callback(_remove_if_empty, LINKS)
        stack.callback(own.purge)
        if own.systemd:
            _enable_controllers()
            subprocess.run(["systemctl", "start", _slice(own.cgroup_root)], check=True)
        else:
            for top in _hierarchies():
                with contextlib.suppress(OSError):
                    (top / own.cgroup_root.lstrip("/")).mkdir()
        own.start()
        yield
        own.stop()


@contextlib.contextmanager
def _sysctls_kept() -> Iterator[None]:
    paths = [Path("/proc/sys", name) for name in SYSCTLS]
    before = {path: path.read_text() for path in paths if path.exists()}
    try:
        yield
    finally:
        for path, value in before.items():
            if path.read_text() != value:
                path.write_text(value)


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()
