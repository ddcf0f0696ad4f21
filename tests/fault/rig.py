"""One node's life cycle of real parts in this process, with directories, network and cgroups of its own.

The parts are assembled as the daemon does it, without sockets. `Rig.things` says what is on the machine that
bears the rig's names, whatever any record says; `Rig.unknown` what of it no record accounts for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from api import composition
from api.composition import Assembly
from config.loading import load
from oci.workload import (
    ContainerMetadata,
    ContainerSecurity,
    ContainerSpec,
    ImageSpec,
    NamespaceMode,
    NamespaceOptions,
    PodMetadata,
    PodSecurity,
    PodSpec,
)
from shim import recovery
from shim.node import Node
from tests import leaks
from tests.daemon import Daemon, toml
from tests.fault.faults import Faults
from tests.images import catalogue
from tests.images.registry import Registry, write_hosts
from tests.parts.build import program

REALM = "kubelet"
_PATIENCE = 5.0  # seconds that the kernel, and whoever reaps orphans, may take with what nobody holds


@dataclass(slots=True, kw_only=True)
class Rig:
    """`handler` is the runtime of its pods. `open` can be called again and again, as a restart does."""

    own: Daemon  # for its names and settings; its process is never started here
    handler: str = "runc"
    faults: Faults = field(default_factory=Faults)
    id_prefix: str = field(default_factory=lambda: f"fa{secrets.token_hex(5)}")
    _pods: int = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Assembly]:
        """The recovered parts, closed at the end as at SIGTERM. The janitor runs only when it is asked."""
        assembly = await self.assemble()
        try:
            yield assembly
        finally:
            self.faults.disarm()
            await assembly.close()

    async def assemble(self) -> Assembly:
        """For those who close the parts themselves."""
        loaded = await asyncio.to_thread(load, self.own.config_file, required=True)
        assembly = await composition.assemble(loaded, around=self._around)
        await recovery.recover(assembly.node, assembly.exits.listener)
        return assembly

    def _around(self, node: Node) -> Node:
        wrap = self.faults.wrap
        return replace(
            node,
            store=wrap("store", node.store),
            namespaces=wrap("namespaces", node.namespaces),
            network=wrap("network", node.network),
            images=wrap("images", node.images),
            handlers=wrap("handlers", node.handlers, inner={"driver": lambda real: wrap("driver", real)}),
            new_id=lambda: self.id_prefix + secrets.token_hex(32)[len(self.id_prefix) :],
        )

    def pod(self, *, shared_pids: bool = False) -> PodSpec:
        """A pod of a name that was not used before."""
        self._pods += 1
        pid = NamespaceMode.POD if shared_pids else NamespaceMode.CONTAINER
        return PodSpec(
            metadata=PodMetadata(name=f"pod{self._pods}", namespace="fault", uid=f"uid{self._pods}"),
            log_directory=str(self.own.directory / "logs" / f"pod{self._pods}"),
            security=PodSecurity(namespaces=NamespaceOptions(pid=pid)),
            handler=self.handler,
            cgroup_parent=f"/{self.own.cgroup_prefix}",
        )

    @staticmethod
    def container(pod: PodSpec, *, attempt: int = 0) -> ContainerSpec:
        """A container that runs until its stop signal, and then ends with 3."""
        return ContainerSpec(
            metadata=ContainerMetadata(name="main", attempt=attempt),
            image=ImageSpec(image=catalogue.BUSYBOX),
            command=("sh", "-c", 'trap "exit 3" TERM; echo up; sleep 1000 & wait'),
            log_path=f"main/{attempt}.log",
            security=ContainerSecurity(namespaces=pod.security.namespaces),
        )

    def things(self) -> frozenset[str]:
        """What is on the machine under the rig's names, as sentences. Blocking, some ten milliseconds."""
        own = self.own
        names = (str(own.directory), own.cgroup_prefix, f"/run/netns/crisp-{self.id_prefix}")
        rooms = [own.state_dir / name for name in ("pods", "containers", "cni", "images/lent", "images/l")]
        rooms += [own.run_dir / name for name in ("ns", "ends", "attach", "execs", "logs")]
        rooms += [own.run_dir / name for name in ("fifos", "s")]
        rooms += (own.run_dir / "shims").glob("*")
        rooms += (own.run_dir / "handlers").glob("*")  # made by the runtimes, once
        kinds: dict[str, Iterable[str]] = {
            "mount": leaks.mounts(),
            "network namespace": (f"/run/netns/{name}" for name in leaks.network_namespaces()),
            # The monitors' own group comes with the first and is the daemon's for ever.
            "cgroup": (group for group in leaks.cgroups() if not group.endswith("-monitors")),
            "process": (
                p for p in leaks.processes((own.directory,)) if f"--config {own.config_file}" not in p
            ),
        }
        found = {
            f"{kind} {entry}"
            for kind, entries in kinds.items()
            for entry in entries
            if any(name in entry for name in names)
        }
        found |= {f"path {path}" for path in leaks.paths(rooms)}
        found |= {f"lease {lease}" for lease in _leases(own.run_dir / "leases")}
        found |= {f"port {name}" for name in _entries(Path("/sys/class/net", own.bridge, "brif"))}
        found |= {f"process {pid} in {group}" for pid, group in _contained(own.cgroup_prefix)}
        return frozenset(found)

    def unknown(self, base: frozenset[str], assembly: Assembly) -> list[str]:
        """What is there, was not there at `base`, and belongs to no record."""
        store = assembly.node.store
        attached = sum(pod.network_owed for pod in store.pods.values())
        return unaccounted(self.things() - base, [*store.pods, *store.containers], attached)


def settled(look: Callable[[], list[str]]) -> list[str]:
    """What `look` finds once it finds nothing, or still finds after the kernel's patience. Blocking."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        left = look()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def unaccounted(things: Iterable[str], ids: Iterable[str], attached: int) -> list[str]:
    """What of `things` belongs to no pod or container of `ids`, of which `attached` have a network."""
    marks = [id_[:16] for id_ in ids]  # links to attach sockets are cut short
    extra = {thing for thing in things if not any(mark in thing for mark in marks)}
    ports = sorted(thing for thing in extra if thing.startswith("port "))
    # Layers, and the sockets of shims, are named by digests.
    digests = {thing for thing in extra if "/images/l/" in thing or "/run/s/" in thing} if marks else set()
    return sorted(extra - set(ports[:attached]) - digests)


def settings_of(handler: str) -> dict[str, dict[str, str]]:
    """The tables that a handler needs which is not found on PATH."""
    if handler == "runc-new":
        return {f"handlers.{handler}": {"binary": str(program("runc", "runc"))}}
    if handler != "shim-runc-v2":
        return {}
    shim = program("containerd", "containerd-shim-runc-v2")
    return {f"handlers.{handler}": {"kind": "shim", "binary": str(shim)}}


@contextlib.contextmanager
def rigged(registry: Registry, *, handler: str = "runc") -> Iterator[Rig]:
    """A rig whose directories exist; at the end whatever is left of it is taken away by force."""
    own = Daemon(directory=Path(tempfile.mkdtemp(prefix="crisp-")))
    own.directory.chmod(0o755)
    try:
        for name in ("net.d", "certs.d"):
            (own.directory / name).mkdir()
        write_hosts(own.certs_dir, registry)
        own.overrides = settings_of(handler)
        settings = own.settings()
        settings["containers"] = {"kill_timeout": "3s", "runtime_timeout": "20s"}
        own.config_file.write_text(toml(settings))
        rig = Rig(own=own, handler=handler)
        try:
            yield rig
        finally:
            for name in leaks.network_namespaces():
                if name.startswith(f"crisp-{rig.id_prefix}"):
                    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    finally:
        own.purge()


def _leases(directory: Path) -> Iterator[str]:
    """host-local's files with the container that they are for, which stands in their first line."""
    for network in _entries(directory):
        for name in _entries(directory / network):
            if name[0].isdigit():
                yield f"{name} of {(directory / network / name).read_text().split()[0]}"


def _contained(prefix: str) -> Iterator[tuple[int, str]]:
    """Living processes in the rig's cgroups: those of a container name no directory of ours."""
    for group in leaks.cgroups():
        if prefix in group and not group.endswith("-monitors"):
            try:
                pids = Path(group, "cgroup.procs").read_text().split()
            except OSError:
                continue
            for pid in pids:
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                        yield int(pid), group


def _entries(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names are what is wanted
    except OSError:
        return []
