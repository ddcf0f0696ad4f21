"""ExecSync: a command beside the container's process, to its end, with its output."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from oci.bundle import exec_process
from oci.errors import Internal, WrongState
from shim.containers.target import target
from shim.node import Node
from shim.records import ContainerRecord, ContainerState
from shim.runtimes.driver import ExecRequest, ExecResult


async def exec_sync(
    node: Node, record: ContainerRecord, command: tuple[str, ...], *, limit: float | None
) -> ExecResult:
    """Run `command` with the container's environment, user and directory; no stdin, no terminal.

    `limit` is seconds, None for none: at its end the whole process tree is killed and Deadline is raised. It
    ends with its caller. A command that ends with a code other than 0 is no error.
    """
    require_running(record)
    process = await asyncio.to_thread(read_process, node.paths.container(record.id))
    request = ExecRequest(process=exec_process(process, command), timeout=limit)
    return await node.driver_of(record).exec_sync(target(node.paths, record), request)


def require_running(record: ContainerRecord) -> None:
    """Raises WrongState unless the container runs."""
    if record.state is not ContainerState.RUNNING:
        raise WrongState(f"container {record.id} is {record.state.value}, it does not run")


def read_process(directory: Path) -> dict[str, Any]:
    """The OCI process object of the container with this bundle. Blocking. Raises Internal."""
    path = directory / "config.json"
    try:
        process: dict[str, Any] = json.loads(path.read_bytes())["process"]
    except (OSError, ValueError, KeyError) as error:
        raise Internal(f"exec: cannot read the bundle's {path}: {error}") from error
    return process
