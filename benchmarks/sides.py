"""The two sides: a `crispd` and a containerd of the run's own, set up alike. Each only starts, tells where it
is spoken to and which processes are its, and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from api.client import Client, connect
from benchmarks.images import HOSTS, PAUSE
from tests.daemon import Daemon
from tests.images.registry import Registry, write_hosts
from tests.parts.build import program

PLUGINS = "/usr/lib/cni"
MARK = "CRISP_BENCHMARK_WORKLOAD=1"  # in the environment of every workload, to tell it from its runtime
_START_LIMIT = 60.0


def conflist(*, bridge: str, subnet: str) -> str:
    """The network that both have, but for the names: bridge, host-local, portmap."""
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": bridge,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": bridge,
                    "isGateway": True,
                    "ipMasq": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": subnet}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
    )


def _volatile(directory: Path) -> Path:
    """A directory as those below /run are: in memory. It goes with the run's mount namespace."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", directory], check=True)
    return directory


class Side(Protocol):
    """A runtime under measurement."""

    name: str
    version: str

    @property
    def pid(self) -> int: ...

    @property
    def socket(self) -> Path: ...

    @property
    def directory(self) -> Path: ...

    def client(self) -> Client:
        """A connection that its user closes."""


class Crispd:
    """This tree's daemon, with the configuration of a node: no debug log, a CNI configuration given."""

    name = "crispd"

    def __init__(
        self,
        directory: Path,
        *,
        group: str,
        environment: dict[str, str] | None = None,
        handlers: Mapping[str, dict[str, Any]] | None = None,
        images: dict[str, Any] | None = None,
    ) -> None:
        """`handlers` are tables of the configuration by name, `images` is the one of that name."""
        directory.mkdir(mode=0o755)
        self._daemon = Daemon(
            directory=directory,
            environment=environment or {},
            overrides={
                "log": {"level": "info"},
                "network": {"builtin": False},
                "cgroup": {"driver": "cgroupfs", "prefix": "bench", "monitors": f"{group}/monitors"},
                "images": images or {},
                **{f"handlers.{name}": table for name, table in (handlers or {}).items() if table},
            },
        )
        self.version = "of this tree"

    @property
    def pid(self) -> int:
        return self._daemon.pid

    @property
    def socket(self) -> Path:
        return self._daemon.cri_socket

    @property
    def directory(self) -> Path:
        return self._daemon.directory

    @property
    def admin_socket(self) -> Path:
        return self._daemon.admin_socket

    @property
    def bundles(self) -> Path:
        """Where its containers' OCI bundles are."""
        return self._daemon.state_dir / "containers"

    @property
    def exceptions(self) -> list[str]:
        return self._daemon.exceptions()

    def client(self) -> Client:
        return connect(self.socket)

    @contextlib.contextmanager
    def running(self, registry: Registry) -> Iterator[None]:
        _volatile(self._daemon.run_dir)
        write_hosts(self._daemon.certs_dir, registry, HOSTS)
        net = self.directory / "net.d"
        net.mkdir()
        (net / "10-bench.conflist").write_text(conflist(bridge="bench0", subnet="10.210.0.0/16"))
        self._daemon.start()
        try:
            yield
        finally:
            self._daemon.stop()


class Containerd:
    """containerd as its own default configuration has it, with directories and network of the run."""

    name = "containerd"

    def __init__(self, directory: Path, *, runtimes: str = "", path: Sequence[Path] = ()) -> None:
        """`runtimes` is text for its configuration, `path` where the shims that it names are."""
        directory.mkdir(mode=0o755)
        self._directory = directory
        self._runtimes = runtimes
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._program = program("containerd", "containerd")
        told = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=True).stdout
        self.version = told.split()[2].partition("+")[0]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def socket(self) -> Path:
        return self._directory / "state" / "containerd.sock"

    @property
    def directory(self) -> Path:
        return self._directory

    def client(self) -> Client:
        return connect(self.socket)

    def _configuration(self) -> str:
        top = self._directory
        return f"""\
version = 3
root = '{top}/root'
state = '{top}/state'
temp = '{top}/temp'
imports = []
[grpc]
address = '{self.socket}'
[ttrpc]
address = '{self.socket}.ttrpc'
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{top}/certs.d'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = {str(not may_lower_oom_score()).lower()}
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{shutil.which("runc")}'
{self._runtimes}\
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{PLUGINS}']
conf_dir = '{top}/net.d'
[plugins.'io.containerd.internal.v1.opt']
path = '{top}/opt'
[plugins.'io.containerd.nri.v1.nri']
socket_path = '{top}/nri.sock'
plugin_path = '{top}/nri/plugins'
plugin_config_path = '{top}/nri/conf.d'
"""

    @contextlib.contextmanager
    def running(self, registry: Registry) -> Iterator[None]:
        top = self._directory
        _volatile(top / "state")
        write_hosts(top / "certs.d", registry, HOSTS)
        (top / "net.d").mkdir()
        (top / "net.d" / "10-bench.conflist").write_text(conflist(bridge="bench1", subnet="10.211.0.0/16"))
        (top / "config.toml").write_text(self._configuration())
        path = [str(self._program.parent), *map(str, self._path), os.environ["PATH"]]
        with (top / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, "--config", top / "config.toml"],
                env={**os.environ, "PATH": ":".join(path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
            yield
        finally:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    def _wait_until_ready(self) -> None:
        from api.proto import cri_pb2

        deadline = time.monotonic() + _START_LIMIT
        while True:
            try:
                with self.client() as client:
                    status = client.runtime.Status(cri_pb2.StatusRequest(), timeout=5).status
                    ready = {condition.type for condition in status.conditions if condition.status}
                    if {"RuntimeReady", "NetworkReady"} <= ready:
                        return
                    problem = str(status.conditions)
            except Exception as error:  # noqa: BLE001 - whatever is wrong, it may not be up yet
                problem = str(error)
            if time.monotonic() > deadline:
                log = (self._directory / "log").read_text(errors="replace")[-4000:]
                raise TimeoutError(f"containerd is not ready: {problem}\n{log}")
            time.sleep(0.1)


def may_lower_oom_score() -> bool:
    """CAP_SYS_RESOURCE (24), without which containerd's sandboxes do not start as it configures them."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:")
    )
    return bool(int(line.split()[1], 16) >> 24 & 1)
