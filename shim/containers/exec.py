"""ExecSync: a command beside the container's process, to its end, with its output."""

from __future__ import annotations

from oci.bundle import exec_process
from oci.errors import WrongState
from shim.containers.bundle import Processes
from shim.containers.target import target
from shim.node import Node
from shim.records import ContainerRecord, ContainerState
from shim.runtimes.driver import ExecRequest, ExecResult


async def exec_sync(
    node: Node,
    processes: Processes,
    record: ContainerRecord,
    command: tuple[str, ...],
    *,
    limit: float | None,
) -> ExecResult:
    """Run `command` with the container's environment, user and directory; no stdin, no terminal.

    `limit` is seconds, None for none: at its end the whole process tree is killed and Deadline is raised. It
    ends with its caller. A command that ends with a code other than 0 is no error.
    """
    require_running(record)
    process = await processes.of(record.id, node.paths.container(record.id))
    request = ExecRequest(process=exec_process(process, command), timeout=limit)
    return await node.driver_of(record).exec_sync(target(node.paths, record), request)


def require_running(record: ContainerRecord) -> None:
    """Raises WrongState unless the container runs."""
    if record.state is not ContainerState.RUNNING:
        raise WrongState(f"container {record.id} is {record.state.value}, it does not run")
