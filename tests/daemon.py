"""A `crispd` of the tests' own: own sockets, directories, network and cgroups; nothing else is touched.

Drives it from outside alone: its process, its sockets, its log. It must not import what the daemon is made
of.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from api.proto import cri_pb2, cri_pb2_grpc
from tests import calls, leaks, machine
from tests.images.registry import Registry, write_hosts

TREE = Path(__file__).resolve().parents[1]
START_LIMIT = 30.0 * machine.PATIENCE  # seconds until READY
STOP_LIMIT = 30.0 * machine.PATIENCE  # seconds from SIGTERM to the exit
REMOVAL_LIMIT = 5.0 * machine.PATIENCE  # seconds that what was killed may take to leave its cgroup
CALL_LIMIT = 120.0 * machine.PATIENCE  # seconds that the clients here give a call
MAX_MESSAGE = 16 * 1024 * 1024  # bytes, kubelet's limit

_count = itertools.count()


@dataclass(slots=True, kw_only=True)
class Daemon:
    """One daemon's settings and, between `start` and `stop`, its process."""

    directory: Path
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = ("-m", "api.daemon")  # what Python runs, before `--config FILE`
    process: subprocess.Popen[bytes] | None = None
    ready_after: float = 0.0  # seconds from the start of the process to READY
    _notifications: socket.socket | None = None
    _channels: list[grpc.Channel] = field(default_factory=list)
    _number: int = field(default_factory=_count.__next__)
    _systemd: bool | None = None  # who makes cgroups, once it was asked

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def run_dir(self) -> Path:
        return self.directory / "run"

    @property
    def cri_socket(self) -> Path:
        return self.run_dir / "crisp.sock"

    @property
    def run_socket(self) -> Path:
        return self.run_dir / "run.sock"

    @property
    def admin_socket(self) -> Path:
        return self.run_dir / "admin.sock"

    @property
    def endpoint(self) -> str:
        return f"unix://{self.cri_socket}"

    @property
    def config_file(self) -> Path:
        return self.directory / "config.toml"

    @property
    def certs_dir(self) -> Path:
        return self.directory / "certs.d"

    @property
    def bridge(self) -> str:
        """The bridge of this daemon's built-in network; its name is as short as a link's must be."""
        return f"ct{os.getpid() % 100000}n{self._number}"

    @property
    def subnet(self) -> str:
        return f"10.{100 + os.getpid() % 100}.{self._number % 256}.0/24"

    @property
    def cgroup_prefix(self) -> str:
        return f"crisptest{os.getpid()}n{self._number}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the daemon is not running"
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything that it has logged, over restarts."""
        return (self.directory / "log").read_text(errors="replace")

    def scope(self, *, descriptors: bool = False) -> leaks.Scope:
        """Where its leaks would be: with `descriptors`, while it runs; without, once it is gone."""
        directories = [self.state_dir / name for name in ("pods", "containers", "logs")]
        return leaks.Scope(
            directories=(*directories, self.run_dir),
            leases=(Path("/var/lib/cni/networks"), *(top / "cni" for top in (self.state_dir, self.run_dir))),
            daemon=self.pid if descriptors else None,
            # Connections of clients come and go; the kernel and gRPC close them in their own time.
            # crun keeps compiled filters beside its containers, for all that will have the same.
            expected=(
                "descriptor socket",
                "descriptor anon_inode:*eventpoll*",
                f"path {self.run_dir}/handlers/*/.cache*",
            ),
        )

    def settings(self) -> dict[str, dict[str, Any]]:
        """What config.toml says, by table; "" is the top of the file."""
        tables: dict[str, dict[str, Any]] = {
            "": {"state_dir": str(self.state_dir), "run_dir": str(self.run_dir)},
            "log": {"level": "debug"},
            "cgroup": {"prefix": self.cgroup_prefix},
            "network": {
                "conf_dir": str(self.directory / "net.d"),
                "builtin": True,
                "builtin_bridge": self.bridge,
                "builtin_subnets": [self.subnet],
            },
            "images": {
                "registry_dirs": [str(self.certs_dir)],
                "registries_conf": str(self.directory / "registries.conf"),
                "docker_daemon_json": str(self.directory / "daemon.json"),
                "auth_files": [str(self.directory / "auth.json")],
            },
        }
        for name, values in self.overrides.items():
            tables[name] = {**tables.get(name, {}), **values}
        return tables

    def start(self) -> None:
        """Write the configuration, start the process, return when it says READY (sd_notify(3))."""
        for name in ("net.d", "certs.d"):
            (self.directory / name).mkdir(exist_ok=True)
        self.config_file.write_text(toml(self.settings()))
        notify = self.directory / "notify"
        notify.unlink(missing_ok=True)
        told = self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        told.bind(str(notify))
        with (self.directory / "log").open("ab") as log:
            began = time.monotonic()
            self.process = subprocess.Popen(
                [sys.executable, *self.program, "--config", self.config_file],
                cwd=TREE,
                env={
                    "PATH": machine.SYSTEM_PATH,
                    "LANG": "C.UTF-8",
                    "PYTHONUNBUFFERED": "1",
                    "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
                    "NOTIFY_SOCKET": str(notify),
                    **self.environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self._wait_until_ready(told, began)

    def _wait_until_ready(self, told: socket.socket, began: float) -> None:
        assert self.process is not None
        ended = os.pidfd_open(self.process.pid)
        try:
            waiting = select.poll()
            waiting.register(told, select.POLLIN)
            waiting.register(ended, select.POLLIN)
            while time.monotonic() < began + START_LIMIT:
                ready = [fd for fd, _ in waiting.poll((began + START_LIMIT - time.monotonic()) * 1000)]
                if told.fileno() in ready:
                    if "READY=1" in told.recv(4096).decode().splitlines():
                        self.ready_after = time.monotonic() - began
                        return
                elif ended in ready:
                    raise RuntimeError(
                        f"crispd ended with {self.process.wait()} before READY:\n{self.log[-8000:]}"
                    )
            raise TimeoutError(f"crispd is not READY after {START_LIMIT} s:\n{self.log[-8000:]}")
        finally:
            os.close(ended)

    def kill(self) -> None:
        """As a power cut of this process alone: SIGKILL, and reap it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._forget()

    def stop(self) -> int:
        """SIGTERM and the exit status; containers stay. Killed, and a TimeoutError, if it takes too long."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(
                f"crispd still ran {STOP_LIMIT} s after SIGTERM:\n{self.log[-8000:]}"
            ) from None
        self._forget()
        return status

    def restart(self) -> None:
        assert self.stop() == 0
        self.start()

    def _forget(self) -> None:
        self.process = None
        if self._notifications is not None:
            self._notifications.close()
            self._notifications = None
        for channel in self._channels:
            channel.close()
        self._channels.clear()

    def channel(self, path: Path | None = None) -> grpc.Channel:
        """A connection to one of its sockets (kubelet's unless told), closed when the daemon stops."""
        limits = [
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
        ]
        channel = grpc.intercept_channel(
            grpc.insecure_channel(f"unix:{path or self.cri_socket}", options=limits), calls.Recorder()
        )
        self._channels.append(channel)
        return channel

    def runtime(self, path: Path | None = None) -> cri_pb2_grpc.RuntimeServiceStub:
        return cri_pb2_grpc.RuntimeServiceStub(self.channel(path))

    def images(self, path: Path | None = None) -> cri_pb2_grpc.ImageServiceStub:
        return cri_pb2_grpc.ImageServiceStub(self.channel(path))

    def systemd_cgroups(self) -> bool:
        """Whether it leaves the making of cgroups to systemd, as it tells kubelet."""
        told = self.runtime().RuntimeConfig(cri_pb2.RuntimeConfigRequest(), timeout=CALL_LIMIT)
        return bool(told.linux.cgroup_driver == cri_pb2.SYSTEMD)

    def remove_all_pods(self) -> None:
        """Stop and remove every pod of both realms, through CRI."""
        for path in (self.cri_socket, self.run_socket):
            runtime = self.runtime(path)
            listed = runtime.ListPodSandbox(cri_pb2.ListPodSandboxRequest(), timeout=CALL_LIMIT)
            for pod in listed.items:
                runtime.StopPodSandbox(
                    cri_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=CALL_LIMIT
                )
                runtime.RemovePodSandbox(
                    cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=CALL_LIMIT
                )

    def pod_parent(self, name: str) -> str:
        """The cgroup parent of a pod, as kubelet names it for the driver of cgroups that there is."""
        if self._systemd is None:
            self._systemd = self.systemd_cgroups()
        top = f"{self.cgroup_prefix}-pods"
        return f"{top}-{name}.slice" if self._systemd else f"/{top}/{name}"

    def remove_pod_groups(self) -> None:
        """Take away the parents of pods' cgroups, which kubelet would remove."""
        _remove_groups(f"/{self.cgroup_prefix}-pods")

    def exceptions(self) -> list[str]:
        """Tracebacks in its log: a failure that nobody translated."""
        parts = self.log.split("Traceback (most recent call last):\n")[1:]
        return [part[-4000:] for part in parts]

    def purge(self) -> None:
        """Take away by force whatever is left of it, so that one failed test does not fail the next."""
        if self.process is not None:
            self.kill()
        mark = os.fsencode(str(self.directory))
        for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:  # noqa: PTH208 - names only
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if mark in Path(f"/proc/{pid}/cmdline").read_bytes() and pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)
        points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        pinned = self._pinned_namespaces()
        for point in reversed(points):
            if point.startswith(f"{self.directory}/") or point in pinned:
                subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        for path in pinned:
            Path(path).unlink(missing_ok=True)
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)
        for rule in leaks.firewall():
            if self.bridge in rule and rule.startswith("-A "):
                words = shlex.split(rule.rpartition(" (")[0])[1:]
                subprocess.run(["iptables", "-t", "nat", "-D", *words], check=False, capture_output=True)
        for group in reversed(list(leaks.cgroups())):
            if self.cgroup_prefix in group:
                _remove_group(Path(group))
        shutil.rmtree(self.directory, ignore_errors=True)

    def _pinned_namespaces(self) -> set[str]:
        """Paths in /run/netns that its pods' own files name."""
        found = set()
        for path in (self.state_dir / "pods").glob("*/*.json"):
            found.update(re.findall(r"/run/netns/[\w.-]+", path.read_text(errors="replace")))
        return found


def _remove_groups(mark: str, *, leaves: bool = False) -> None:
    """Remove empty groups with `mark` in their paths (`leaves`: at the end), slices by systemd."""
    names = (mark, f"{mark}.slice")
    found = [group for group in leaks.cgroups() if (group.endswith(names) if leaves else mark in group)]
    slices = [group.rpartition("/")[2] for group in found if group.endswith(".slice")]
    if slices:
        subprocess.run(["systemctl", "stop", *slices], check=True)
    for group in reversed(found):
        with contextlib.suppress(FileNotFoundError):  # systemd has done it
            Path(group).rmdir()


def _remove_group(group: Path) -> None:
    deadline = time.monotonic() + REMOVAL_LIMIT
    while pids := (group / "cgroup.procs").read_text().split():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    with contextlib.suppress(OSError):
        group.rmdir()


@contextlib.contextmanager
def running(
    registry: Registry | None = None,
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    environment: Mapping[str, str] | None = None,
    shared: bool = False,
) -> Iterator[Daemon]:
    """A daemon that serves within the block. At its end pods are removed, and what is left then is an error.

    `overrides` are settings by table, "" for the top of the file. With `registry` the usual image names are
    pulled from it. `shared` is for one that lives over many tests: at its end only what bears its own names
    counts, since other runs may have come and gone meanwhile.
    """
    before = leaks.take(leaks.Scope())
    # Short, because a unix socket's path is at most 107 bytes.
    daemon = Daemon(
        directory=Path(tempfile.mkdtemp(prefix="crisp-")),
        overrides=overrides or {},
        environment={"PYTHONASYNCIODEBUG": machine.ASYNCIO_DEBUG} if environment is None else environment,
    )
    daemon.directory.chmod(0o755)
    try:
        if registry is not None:
            write_hosts(daemon.certs_dir, registry)
        daemon.start()
        try:
            yield daemon
        finally:
            if daemon.process is None:  # a test that killed it: what it left must be recovered and removed
                daemon.start()
            daemon.remove_all_pods()
            status = daemon.stop()
            sys.stderr.write(f"--- the end of crispd's log\n{daemon.log[-12000:]}")
        assert status == 0, "crispd's exit status"
        assert not daemon.exceptions(), "\n".join(["crispd logged exceptions:", *daemon.exceptions()])
        # The bridge and the monitors' group are the daemon's for ever, like its directories; the group that
        # tests name as the parent of a pod's is theirs, as it is kubelet's on a node.
        subprocess.run(["ip", "link", "delete", daemon.bridge], check=False, capture_output=True)
        _remove_groups(f"/{daemon.cgroup_prefix}-monitors")
        _remove_groups(f"/{daemon.cgroup_prefix}", leaves=True)
        names = (str(daemon.directory), daemon.bridge, daemon.cgroup_prefix, daemon.subnet.rpartition(".")[0])
        left = leaks.settled(before, leaks.Scope(leases=daemon.scope().leases))
        kept = tuple(leaks.paths((daemon.state_dir / "pods", daemon.state_dir / "containers")))
        if shared:
            left = tuple(leak for leak in left if any(name in leak for name in names))
        assert left + kept == (), f"left behind by crispd: {left + kept}"
    finally:
        daemon.purge()


def warm_up(daemon: Daemon) -> None:
    """Run and remove a pod of each handler: then the bridge, the monitors' groups and the like are there."""
    runtime = daemon.runtime()
    handlers = runtime.Status(cri_pb2.StatusRequest(), timeout=CALL_LIMIT).runtime_handlers
    for handler in {entry.name for entry in handlers}:
        metadata = cri_pb2.PodSandboxMetadata(name=f"warm-up-{handler}", namespace="default", uid="warm-up")
        config = cri_pb2.PodSandboxConfig(metadata=metadata)
        runtime.RunPodSandbox(
            cri_pb2.RunPodSandboxRequest(config=config, runtime_handler=handler), timeout=CALL_LIMIT
        )
    daemon.remove_all_pods()


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """A TOML document of tables of texts, numbers, booleans and lists of texts."""
    lines = [f"{key} = {_value(value)}" for key, value in tables.get("", {}).items()]
    for name, values in tables.items():
        if name:
            lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(member) for member in value)}]"
    if isinstance(value, (int, float)):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
