"""Containers for tests of the driver: a busybox root file system, a small configuration, exits kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from oci.errors import Absent
from oci.features import ExecGroup
from oci.quirks import Ability
from oci.workload import ContainerId, PodId
from shim import cgroups, process
from shim.kernel import libc
from shim.logger.keeper import LogKeeper
from shim.runtimes.driver import Driver, ExecRequest, Exit, Observed, Status, Target
from shim.runtimes.ocikind import driver_type
from shim.runtimes.shimv2.driver import ShimDriver
from shim.runtimes.shimv2.families import Sharing, family_of
from shim.runtimes.table import Handler
from tests.machine import PATIENCE

_IN_MODIFY = 0x2


def make_rootfs(directory: Path) -> Path:
    """busybox with what it is linked to, and a link for each applet that the tests use."""
    busybox = shutil.which("busybox", path="/usr/bin:/bin")
    assert busybox is not None, "the package busybox is not installed"
    for name in ("bin", "proc", "dev", "tmp", "etc"):
        (directory / name).mkdir(parents=True)
    shutil.copy(busybox, directory / "bin/busybox")
    linked = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"(/\S+)", linked):
        place = directory / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    for applet in ("sh", "sleep", "true", "echo", "cat", "kill", "ps", "seq", "tail", "setsid", "printf",
                   "head", "tr", "yes", "dd", "usleep", "id", "mkfifo"):  # fmt: skip
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/plain").write_text("not a program\n")
    return directory


@dataclass
class Rig:
    """One handler with directories of its own. `driver` can be opened again and again, as a restart does.

    `found` is what the probe said of it; `binary` stands for its program meanwhile, such as a double. Where
    pods need a first container the rig makes it with the first that is created.
    """

    found: Handler
    base: Path
    rootfs: Path
    binary: Path | None = None
    monitor: Path = Path("/usr/bin/conmon")
    options: dict[str, Any] = field(default_factory=dict)
    exits: dict[str, list[Exit]] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: LogKeeper | None = None
    pod: PodId = field(default_factory=lambda: PodId(secrets.token_hex(32)))
    parent: str = field(default_factory=lambda: f"/crisp-test-driver-{secrets.token_hex(4)}")

    @property
    def monitors(self) -> str:
        """The cgroup of the monitors."""
        return f"{self.parent}-monitors"

    def __post_init__(self) -> None:
        self.cgroups = cgroups.Cgroups(cgroups.find_hierarchies())

    def handler(self) -> Handler:
        handler = replace(self.found, root=self.base / "root")
        if handler.kind == "oci":
            handler = replace(handler, monitor=self.monitor)
        if self.binary is not None:  # a double, whose calls are counted
            handler = replace(handler, binary=self.binary, exec_group=ExecGroup.NONE)
        return handler

    @property
    def by_shim(self) -> bool:
        return self.found.kind == "shim"

    @property
    def host_processes(self) -> bool:
        """Whether a container's processes are this machine's, by what is known of the handler."""
        if self.by_shim:
            return family_of(self.found.binary.name).host_processes
        return not self.found.quirks.inside

    @property
    def guests(self) -> bool:
        """Whether a shim keeps the containers where this machine does not see their processes."""
        return self.by_shim and not self.host_processes

    @property
    def shared(self) -> bool:
        """Whether one shim serves all containers of a pod."""
        return self.by_shim and family_of(self.found.binary.name).sharing is Sharing.POD

    def skip_without(self, ability: Ability) -> None:
        """Skip the test where the handler is known to lack it."""
        lacking = self.found.quirks.lacks.get(ability, "")
        if self.guests and ability in (Ability.GROUP, Ability.LIMITS):
            lacking = "its containers are no processes of this machine"
        if lacking:
            pytest.skip(f"{self.found.name}: {lacking}")

    @property
    def groups_execs(self) -> bool:
        """Whether an exec has a cgroup of its own with this runtime on this machine."""
        least = ExecGroup.PATH if self.cgroups.hierarchies.unified else ExecGroup.CONTROLLER
        return self.handler().exec_group in (least, ExecGroup.CONTROLLER)

    @contextlib.asynccontextmanager
    async def driver(self, **options: Any) -> AsyncIterator[Driver]:
        """A driver as one life of the daemon has it."""
        async with self._shim_driver(**options) if self.by_shim else self._oci_driver(**options) as made:
            yield made

    @contextlib.asynccontextmanager
    async def _shim_driver(self, **options: Any) -> AsyncIterator[Driver]:
        keeper = LogKeeper(directory=self.base / "run/logger", cgroups=self.cgroups, cgroup=self.monitors)
        driver = ShimDriver(
            self.handler(),
            run_dir=self.base / "run",
            keeper=keeper,
            exits=self._ended,
            hierarchies=self.cgroups.hierarchies,
            systemd=False,
            monitors=self.monitors,
            **{**self.options, **options},
        )
        self.keeper = keeper
        try:
            yield driver
        finally:
            await driver.close()
            await keeper.close()

    @contextlib.asynccontextmanager
    async def _oci_driver(self, **options: Any) -> AsyncIterator[Driver]:
        handler = self.handler()
        driver = driver_type(handler.quirks)(
            handler,
            run_dir=self.base / "run",
            exits=self._ended,
            hierarchies=self.cgroups.hierarchies,
            systemd=False,
            monitors=self.monitors,
            **{**self.options, **options},
        )
        try:
            yield driver
        finally:
            await driver.close()

    def _ended(self, container: ContainerId, ended: Exit) -> None:
        self.exits.setdefault(container, []).append(ended)
        self.changed.set()

    async def ended(self, target: Target, *, within: float = 15.0 * PATIENCE) -> Exit:
        """The container's exit; it must be told exactly once."""
        async with asyncio.timeout(within):
            while target.id not in self.exits:
                self.changed.clear()
                await self.changed.wait()
        (only,) = self.exits[target.id]
        return only

    def target(self, **changed: Any) -> Target:
        """A new container's place."""
        id_ = changed.pop("id", None) or ContainerId(secrets.token_hex(32))
        directory = self.base / id_
        directory.mkdir()
        target = Target(
            id=id_,
            pod_id=self.pod,
            directory=directory,
            log_path=self.base / "logs" / id_ / "0.log",
            tty=False,
            stdin=False,
            stdin_once=False,
            cgroup=f"{self.parent}/{id_}",
        )
        target = replace(target, **changed)
        self.targets.append(target)
        return target

    async def prepare(self, driver: Driver) -> None:
        """Run the pod's first container, where the driver needs one and it is not there."""
        if not driver.needs_init or any(target.id == self.pod for target in self.targets):
            return
        first = self.target(id=ContainerId(self.pod), log_path=None)
        created = await driver.create(first, self.spec(first, ["sleep", "1000000"]))
        self.targets[-1] = replace(first, process=created.process, monitor=created.monitor)
        await driver.start(self.targets[-1])

    def spec(
        self, target: Target, args: Sequence[str], *, own_pids: bool = True, **more: Any
    ) -> dict[str, Any]:
        """A small configuration. `memory` limits it, in bytes."""
        kinds = ["mount", "ipc", "uts", "network", *(["pid"] if own_pids else [])]
        resources: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}
        if memory := more.get("memory"):
            resources["memory"] = {"limit": memory, "swap": memory}
        mounts = [{"destination": "/proc", "type": "proc", "source": "proc"}]
        if not own_pids:  # a new proc cannot be mounted for the host's pids in all environments
            mounts = [{"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind", "ro"]}]
        return {
            "ociVersion": "1.0.2",
            "annotations": {
                "io.kubernetes.cri.container-type": "sandbox" if target.id == self.pod else "container",
                "io.kubernetes.cri.sandbox-id": self.pod,
            },
            "process": self.process(args, terminal=target.tty),
            "root": {"path": str(self.rootfs), "readonly": True},
            "mounts": [
                *mounts,
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {
                "cgroupsPath": target.cgroup,
                "namespaces": [{"type": kind} for kind in kinds],
                "resources": resources,
            },
        }

    @staticmethod
    def process(args: Sequence[str], *, terminal: bool = False) -> dict[str, Any]:
        return {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin"],
            "cwd": "/",
        }

    def exec(self, *args: str, timeout: float | None = 10.0 * PATIENCE, **more: Any) -> ExecRequest:
        return ExecRequest(process=self.process(args), timeout=timeout, **more)

    async def create(self, driver: Driver, *args: str, own_pids: bool = True, **changed: Any) -> Target:
        memory = changed.pop("memory", None)
        await self.prepare(driver)
        target = self.target(**changed)
        created = await driver.create(target, self.spec(target, args, own_pids=own_pids, memory=memory))
        target = replace(target, process=created.process, monitor=created.monitor)
        self.targets[-1] = target
        return target

    async def run(self, driver: Driver, *args: str, **more: Any) -> Target:
        target = await self.create(driver, *args, **more)
        await driver.start(target)
        return target

    def processes(self, target: Target) -> list[int]:
        """Those of the container, also where it lives in what stands for a virtual machine."""
        parent, _, name = target.cgroup.rpartition("/")
        return self.cgroups.processes(target.cgroup) + self.cgroups.processes(f"{parent}/guest/{name}")

    async def adopt_ended(self, driver: Driver, target: Target) -> Observed:
        """Adopt a container whose process has gone, which a shim may hear of a moment after the kernel."""
        observed = await driver.adopt(target)
        if not self.by_shim or observed.status is not Status.RUNNING:
            return observed
        await self.ended(target)
        return Observed(status=Status.STOPPED, exit=self.exits.pop(target.id)[0])

    async def gone(self, target: Target) -> None:
        """Wait until the container's process has ended, whoever hears of that."""
        if not self.guests:
            assert target.process is not None
            assert await process.wait_gone(target.process, 10 * PATIENCE)
            return
        for pid in self.processes(target):
            with contextlib.suppress(Absent):  # it may end between the two looks
                assert await process.wait_gone(process.reference(pid), 10 * PATIENCE)

    def memory_limit(self, target: Target) -> int:
        """Bytes, as the kernel has it."""
        found = self.cgroups.hierarchies
        name = "memory.max" if found.unified else "memory.limit_in_bytes"
        top = found.v2 if found.unified else found.of("memory")
        assert top is not None
        return int((top / target.cgroup.strip("/") / name).read_text())

    async def pause(self, target: Target) -> None:
        """As somebody at the machine would: by the runtime's own verb, or the freezer below a shim."""
        if not self.by_shim:
            handler = self.handler()
            argv = [handler.binary, f"--root={handler.root}", "pause", target.id]
            await process.run(argv, timeout=10 * PATIENCE)
            return
        if not self.host_processes:
            pytest.skip(f"{self.found.name}: a shim alone pauses what is no process of this machine")
        found = self.cgroups.hierarchies
        top, name, word = (
            (found.v2, "cgroup.freeze", "1")
            if found.unified
            else (found.of("freezer"), "freezer.state", "FROZEN")
        )
        assert top is not None
        (top / target.cgroup.strip("/") / name).write_text(word)

    def execs(self) -> list[Path]:
        """Files of execs that are under way."""
        if self.by_shim:
            return list((self.base / "run/fifos").glob("*/exec-*"))
        return list((self.base / "run/execs").iterdir())

    async def close(self) -> None:
        """Delete every container and the cgroups; then the leak check looks."""
        async with self.driver() as driver:
            for target in reversed(self.targets):  # the pod's first container at last
                await driver.delete(target)
        self.cgroups.remove(self.parent)
        self.cgroups.remove(self.monitors)


def log_lines(target: Target) -> list[tuple[str, str, str]]:
    """(stream, tag, text) of each line of the container's log."""
    assert target.log_path is not None
    return [
        (stream, tag, text)
        for _, stream, tag, text in (
            line.split(" ", 3) for line in target.log_path.read_text().split("\n") if line
        )
    ]


def output(target: Target, stream: str = "stdout") -> str:
    """What the container wrote, put together again from its log."""
    return "".join(
        text + ("\n" if tag == "F" else "") for name, tag, text in log_lines(target) if name == stream
    )


async def written(target: Target, words: bytes) -> None:
    """Wait until the container's output holds these words."""
    assert target.log_path is not None
    log = target.log_path
    changed = asyncio.Event()
    descriptor = libc.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
    loop = asyncio.get_running_loop()

    def readable() -> None:
        os.read(descriptor, 65536)
        changed.set()

    loop.add_reader(descriptor, readable)
    try:
        libc.call("inotify_add_watch", descriptor, os.fsencode(log), _IN_MODIFY)
        async with asyncio.timeout(10 * PATIENCE):
            while words not in log.read_bytes():
                await changed.wait()
                changed.clear()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
