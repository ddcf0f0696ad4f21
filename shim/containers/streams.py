"""Exec and attach with a client at the streams: what may be asked of which container."""

from __future__ import annotations

from oci.bundle import exec_process
from oci.errors import BadInput
from shim.containers.bundle import Processes
from shim.containers.exec import require_running
from shim.containers.target import target
from shim.node import Node
from shim.records import ContainerRecord
from shim.runtimes.driver import Output, Session, Size, StreamRequest


def check_exec(record: ContainerRecord) -> None:
    """Whether an exec can begin now. Raises WrongState."""
    require_running(record)


def check_attach(record: ContainerRecord, *, terminal: bool) -> None:
    """Whether a client can attach now. Raises WrongState, BadInput."""
    require_running(record)
    if terminal != record.spec.tty:
        has = "has a terminal" if record.spec.tty else "has no terminal"
        raise BadInput(f"tty: {str(terminal).lower()}, but container {record.id} {has}")


async def exec_stream(
    node: Node,
    processes: Processes,
    record: ContainerRecord,
    command: tuple[str, ...],
    *,
    terminal: bool,
    stdin: bool,
    outputs: frozenset[Output],
    size: Size | None,
) -> Session:
    """Run `command` with the container's environment, user and directory; the caller holds its streams."""
    require_running(record)
    process = await processes.of(record.id, node.paths.container(record.id))
    request = StreamRequest(
        process=exec_process(process, command, terminal=terminal), stdin=stdin, outputs=outputs, size=size
    )
    return await node.driver_of(record).exec_stream(target(node.paths, record), request)


async def attach(node: Node, record: ContainerRecord, *, size: Size | None) -> Session:
    """Take part in the container's own streams; a terminal gets this size."""
    require_running(record)
    session = await node.driver_of(record).attach(target(node.paths, record))
    if size is not None:
        try:
            await session.resize(size)
        except BaseException:
            await session.close()
            raise
    return session
