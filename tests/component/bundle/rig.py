"""A pod without a daemon, and containers made in it by real runtimes from configurations that were built."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from oci.bundle import BundleInputs, NamespacePaths, PodFiles
from oci.cgroup import place
from oci.facts import HostFacts
from oci.workload import ContainerId, ContainerSpec
from shim.facts.host import gather
from tests import bundles, leaks

PARENT = "/crisp-test-bundle"
APPLETS = (
    "sh", "cat", "cut", "grep", "head", "hostname", "id", "ls", "mount", "readlink", "sleep", "touch", "true",
    "unshare", "wc",
)  # fmt: skip
RUNTIMES = [name for name in ("runc", "crun") if shutil.which(name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A pod without a daemon: pinned namespaces, files, a busybox root."""

    directory: Path
    host: HostFacts
    namespaces: NamespacePaths
    files: PodFiles

    @property
    def rootfs(self) -> Path:
        return self.directory / "rootfs"

    def inputs(self, id_: str, **changed: Any) -> BundleInputs:
        cgroup = place(PARENT, id_, systemd=False)
        members: dict[str, Any] = {
            "id": ContainerId(id_),
            "host": self.host,
            "namespaces": self.namespaces,
            "files": self.files,
            "cgroup": cgroup,
            "rootfs": str(self.rootfs),
        }
        return replace(bundles.inputs(), **{**members, **changed})


@contextmanager
def staged(tmp_path: Path) -> Iterator[Stage]:
    """The stage in an empty directory; afterwards nothing of it is left."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.fail("busybox is not installed")
    rootfs = tmp_path / "rootfs"
    for name in ("bin", "etc", "proc", "dev", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(busybox, rootfs / "bin/busybox")
    for library in _libraries(busybox):
        target = rootfs / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    for name in APPLETS:
        (rootfs / "bin" / name).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n")
    (rootfs / "etc/group").write_text("root:x:0:\nweb:x:1000:\nextra:x:50000:web\n")
    for name, content in (("hosts", "127.0.0.1 localhost\n"), ("hostname", "web-0\n"), ("resolv.conf", "")):
        (tmp_path / name).write_text(content)
    (tmp_path / "shm").mkdir(mode=0o1777)
    pins = {kind: tmp_path / kind for kind in ("net", "ipc", "uts")}
    for pin in pins.values():
        pin.touch()
    subprocess.run(["unshare", *(f"--{kind}={pin}" for kind, pin in pins.items()), "true"], check=True)
    try:
        yield Stage(
            directory=tmp_path,
            host=gather(),
            namespaces=NamespacePaths(network=str(pins["net"]), ipc=str(pins["ipc"]), uts=str(pins["uts"])),
            files=PodFiles(
                hosts=str(tmp_path / "hosts"),
                hostname=str(tmp_path / "hostname"),
                resolv_conf=str(tmp_path / "resolv.conf"),
                shm=str(tmp_path / "shm"),
            ),
        )
    finally:
        for pin in pins.values():
            subprocess.run(["umount", pin], check=True)
        for group in leaks.cgroups():  # also in hierarchies without a controller
            if group.endswith(PARENT):
                Path(group).rmdir()


def _libraries(binary: str) -> list[str]:
    shown = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    return [word for word in shown.split() if word.startswith("/")]


@dataclass(slots=True, kw_only=True)
class Running:
    """One container of one runtime, created from a configuration; `end` deletes it."""

    runtime: str
    root: Path
    bundle: Path
    id: str

    @property
    def pid(self) -> int:
        return int((self.bundle / "pid").read_text())

    @property
    def output(self) -> str:
        return (self.bundle / "output").read_text()

    def call(self, *words: str | Path) -> None:
        with (self.bundle / "output").open("ab") as sink:
            done = subprocess.run(
                [self.runtime, "--root", self.root, *words, self.id],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                timeout=60,
            )
        assert done.returncode == 0, (words, self.output)


@contextmanager
def created(stage: Stage, runtime: str, config: dict[str, Any], id_: str) -> Iterator[Running]:
    bundle = stage.directory / f"bundle-{id_}"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(config))
    container = Running(runtime=runtime, root=stage.directory / "state", bundle=bundle, id=id_)
    container.call("create", "--bundle", bundle, "--pid-file", bundle / "pid")
    try:
        yield container
    finally:
        container.call("delete", "--force")


def run_to_end(stage: Stage, runtime: str, config: dict[str, Any], id_: str) -> list[str]:
    """Create, start, wait and delete; the lines that the container wrote."""
    with created(stage, runtime, config, id_) as container:
        waiting = os.pidfd_open(container.pid)
        try:
            container.call("start")
            assert select.select([waiting], [], [], 30)[0], "the container did not end"
        finally:
            os.close(waiting)
        return container.output.splitlines()


def script(text: str, **changed: Any) -> ContainerSpec:
    return bundles.container(command=("/bin/sh", "-c", text), **changed)
