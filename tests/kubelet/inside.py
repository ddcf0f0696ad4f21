"""What is to be seen beside kubelet: a container's process, monitor and cgroups, the daemon's images."""

from __future__ import annotations

import json
import os
from pathlib import Path

from api.proto import cri_pb2
from tests.daemon import CALL_LIMIT, Daemon


def pid_of(daemon: Daemon, container_id: str) -> int:
    """The pid of a container's first process; the id may be as kubelet shows it ("crisp://...")."""
    asked = cri_pb2.ContainerStatusRequest(container_id=container_id.rpartition("/")[2], verbose=True)
    told = daemon.runtime().ContainerStatus(asked, timeout=CALL_LIMIT)
    return int(json.loads(told.info["info"])["pid"])


def monitor_of(daemon: Daemon, container_id: str) -> int:
    """The pid of the conmon that watches a container of an OCI runtime."""
    mark = os.fsencode(container_id.rpartition("/")[2])
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if words[0].endswith(b"conmon") and mark in words:
                found.append(int(entry.name))
    (pid,) = found
    return pid


def cgroups_of(pid: int) -> list[Path]:
    """The directories of a process's groups below the tops of their hierarchies, one for each."""
    tops = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            tops[""] = left.split(" ")[4]
        elif kind == "cgroup":
            for option in options.split(","):
                tops[option] = left.split(" ")[4]
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        top = tops.get(controllers.split(",")[0])
        if top is not None and path != "/":
            group = Path(top + path)
            if group.is_dir() and group not in found:
                found.append(group)
    return found


def pull(daemon: Daemon, image: str) -> None:
    asked = cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image=image))
    daemon.images().PullImage(asked, timeout=CALL_LIMIT)


def images(daemon: Daemon) -> set[str]:
    """The names of the images that a daemon has."""
    listed = daemon.images().ListImages(cri_pb2.ListImagesRequest(), timeout=CALL_LIMIT)
    return {tag for image in listed.images for tag in image.repo_tags}
