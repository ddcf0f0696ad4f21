"""A container's bundle as a virtual machine has it: in a group that the node does not know."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from shim.runtimes.shimv2.proto import task_pb2
from tests.doubles.shims.serving import UNKNOWN, Refused
from tests.doubles.shims.ways import Ways


def bundle(ways: Ways, place: Path, config: dict[str, Any], request: task_pb2.CreateTaskRequest) -> Path:
    """What the guest makes of a bundle: a group that the node does not know, a root file system."""
    made = place / "bundle"
    made.mkdir()
    if ways.block:
        mount_disk(request, made / "rootfs")
        config["root"]["path"] = str(made / "rootfs")
    else:
        config["root"]["path"] = str(Path(request.bundle) / config["root"]["path"])
    group = Path(config["linux"].get("cgroupsPath") or f"/{request.id}")
    config["linux"]["cgroupsPath"] = str(group.parent / "guest" / group.name)
    (made / "config.json").write_text(json.dumps(config))
    return made


def mount_disk(request: task_pb2.CreateTaskRequest, place: Path) -> None:
    """Firecracker has no shared file system: the root file system is a disk."""
    mounts = list(request.rootfs)
    if (
        len(mounts) != 1
        or mounts[0].type not in ("ext4", "xfs")
        or not Path(mounts[0].source).is_block_device()
    ):
        raise Refused(
            UNKNOWN, "rpc error: code = Internal desc = the hypervisor has no shared file system: "
            f"one mount of a block device is wanted as root file system, not {len(mounts)} mounts"
        )  # fmt: skip
    place.mkdir()
    options = ",".join(mounts[0].options) or "rw"
    done = subprocess.run(
        ["mount", "-t", mounts[0].type, "-o", options, mounts[0].source, place],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise Refused(UNKNOWN, f"mounting the disk: {done.stderr.decode()}")
