"""A pod's own directory: resolv.conf, hosts, hostname, and the tmpfs behind /dev/shm."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from oci.bundle.inputs import PodFiles
from oci.bundle.podfiles import hostname_file, hosts_file, resolv_conf
from oci.workload import NamespaceMode, PodSpec
from shim.files import make_private_directory, remove_tree, write_atomic, writing
from shim.kernel import mount
from shim.records import PodRecord
from shim.relabel import relabel
from shim.threads import in_thread

_HOST_SHM = "/dev/shm"  # the host's own, which IPC mode NODE shares


def effective_hostname(spec: PodSpec, host_name: str) -> str:
    """The request's host name, or the host's when it names none."""
    return spec.hostname or host_name


def pod_files(pod: PodRecord, directory: Path) -> PodFiles:
    """Where the pod's shared files lie."""
    host_ipc = pod.spec.security.namespaces.ipc is NamespaceMode.NODE
    return PodFiles(
        hosts=str(directory / "hosts"),
        hostname=str(directory / "hostname"),
        resolv_conf=str(directory / "resolv.conf"),
        shm=_HOST_SHM if host_ipc else str(directory / "shm"),
    )


async def make(spec: PodSpec, directory: Path, *, hostname: str, shm_size: int) -> None:
    """Write the files and mount the tmpfs; what is half made is undone by `remove`.

    They belong to the pod's root, so that it may change them in a user namespace too.
    """
    await in_thread(_make, spec, directory, hostname, shm_size)


async def label(directory: Path, label: str) -> None:
    """Give the files the pod's SELinux label, so that its processes may use them. Raises BadInput."""

    def give() -> None:
        for name in ("hosts", "hostname", "resolv.conf", "shm"):
            if (directory / name).exists():
                relabel("the pod's files", (directory / name).resolve(), label)

    await in_thread(give)


async def remove(directory: Path) -> None:
    """Unmount and remove the pod's directory; absent is success."""
    await in_thread(_remove, directory)


async def unmount(directory: Path) -> None:
    """Unmount the pod's /dev/shm and keep the rest; absent is success."""
    await in_thread(mount.unmount, directory / "shm")


def _make(spec: PodSpec, directory: Path, hostname: str, shm_size: int) -> None:
    with writing("pod directory", directory):
        make_private_directory(directory)
        host_hosts = _read(Path("/etc/hosts"))
        host_resolv = _read(Path("/etc/resolv.conf"))
        # Readable by every user of the containers that they are mounted into.
        write_atomic(directory / "hosts", hosts_file(host_hosts, hostname=hostname).encode(), mode=0o644)
        write_atomic(directory / "hostname", hostname_file(hostname).encode(), mode=0o644)
        write_atomic(directory / "resolv.conf", resolv_conf(spec.dns, host_resolv).encode(), mode=0o644)
        if spec.security.namespaces.ipc is not NamespaceMode.NODE:
            shm = directory / "shm"
            shm.mkdir(mode=0o755, exist_ok=True)
            mount.mount_tmpfs(shm, size=shm_size, mode=0o1777)
        user = spec.security.namespaces.user
        if user is not None:
            for name in ("hosts", "hostname", "resolv.conf", "shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.chown(directory / name, user.host_uid(0) or 0, user.host_gid(0) or 0)


def _remove(directory: Path) -> None:
    with writing("pod directory", directory):
        mount.unmount(directory / "shm")
        remove_tree(directory)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
