"""The Task service of one shim as methods: requests composed, answers taken apart, versions told apart.

An empty `exec_id` is the container's own process. Errors are the kinds of `ttrpc.client`; what a runtime's
words in them mean is decided by the driver.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf import empty_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from oci.errors import Unsupported
from shim.runtimes.shimv2.proto import process_pb2, task_pb2
from shim.runtimes.shimv2.ttrpc.client import Client

M = TypeVar("M", bound=Message)

_SPEC: Final = "types.containerd.io/opencontainers/runtime-spec/1/"
PROCESS: Final = f"{_SPEC}Process"
RESOURCES: Final = f"{_SPEC}LinuxResources"

UNKNOWN: Final = process_pb2.UNKNOWN
CREATED: Final = process_pb2.CREATED
RUNNING: Final = process_pb2.RUNNING
STOPPED: Final = process_pb2.STOPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class Stdio:
    """Paths of fifos, "" for streams that nobody wants."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Exit code, 128 + n after signal n, and when (nanoseconds since the epoch, 0 where it was not said)."""

    code: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the shim says of a process; `ended` once it is STOPPED."""

    status: int
    pid: int
    ended: Ended | None


class Task:
    """`version` is what `start` said; where the shim serves another it is found out at the first call."""

    def __init__(self, client: Client, *, version: int, timeout: float) -> None:
        self._client = client
        self._version = version if version in (2, 3) else 2
        self._known = False
        self._timeout = timeout

    async def connect(self, id_: str) -> int:
        """The shim's own process, 0 where it does not say."""
        answer = await self._call("Connect", task_pb2.ConnectRequest(id=id_), task_pb2.ConnectResponse)
        return answer.shim_pid

    async def create(self, id_: str, *, bundle: str, stdio: Stdio, options: Message | None) -> int:
        """Make the container; its first process, or the sandbox's. No limit is told: see the driver."""
        request = task_pb2.CreateTaskRequest(
            id=id_,
            bundle=bundle,
            terminal=stdio.terminal,
            stdin=stdio.stdin,
            stdout=stdio.stdout,
            stderr=stdio.stderr,
        )
        if options is not None:
            request.options.type_url = options.DESCRIPTOR.full_name
            request.options.value = options.SerializeToString()
        return (await self._call("Create", request, task_pb2.CreateTaskResponse, limited=False)).pid

    async def start(self, id_: str, exec_id: str = "") -> int:
        request = task_pb2.StartRequest(id=id_, exec_id=exec_id)
        return (await self._call("Start", request, task_pb2.StartResponse)).pid

    async def execute(self, id_: str, exec_id: str, process: Mapping[str, Any], stdio: Stdio) -> None:
        """Announce a further process, an OCI process object; `start` runs it."""
        request = task_pb2.ExecProcessRequest(
            id=id_,
            exec_id=exec_id,
            terminal=stdio.terminal,
            stdin=stdio.stdin,
            stdout=stdio.stdout,
            stderr=stdio.stderr,
            spec=_document(PROCESS, process),
        )
        await self._call("Exec", request, empty_pb2.Empty)

    async def wait(self, id_: str, exec_id: str = "") -> Ended:
        """Returns when the process has ended, however long that takes."""
        request = task_pb2.WaitRequest(id=id_, exec_id=exec_id)
        answer = await self._call("Wait", request, task_pb2.WaitResponse, limited=False)
        return Ended(code=answer.exit_status, at=_nanoseconds(answer.exited_at))

    async def state(self, id_: str, exec_id: str = "") -> State:
        request = task_pb2.StateRequest(id=id_, exec_id=exec_id)
        answer = await self._call("State", request, task_pb2.StateResponse)
        ended = None
        if answer.status == STOPPED:
            ended = Ended(code=answer.exit_status, at=_nanoseconds(answer.exited_at))
        return State(status=answer.status, pid=answer.pid, ended=ended)

    async def kill(self, id_: str, number: int, *, exec_id: str = "", everything: bool = False) -> None:
        request = task_pb2.KillRequest(id=id_, exec_id=exec_id, signal=number, all=everything)
        await self._call("Kill", request, empty_pb2.Empty)

    async def delete(self, id_: str, exec_id: str = "") -> Ended:
        request = task_pb2.DeleteRequest(id=id_, exec_id=exec_id)
        answer = await self._call("Delete", request, task_pb2.DeleteResponse)
        return Ended(code=answer.exit_status, at=_nanoseconds(answer.exited_at))

    async def resize(self, id_: str, exec_id: str, *, width: int, height: int) -> None:
        request = task_pb2.ResizePtyRequest(id=id_, exec_id=exec_id, width=width, height=height)
        await self._call("ResizePty", request, empty_pb2.Empty)

    async def close_input(self, id_: str, exec_id: str = "") -> None:
        request = task_pb2.CloseIORequest(id=id_, exec_id=exec_id, stdin=True)
        await self._call("CloseIO", request, empty_pb2.Empty)

    async def update(self, id_: str, resources: Mapping[str, Any]) -> None:
        request = task_pb2.UpdateTaskRequest(id=id_, resources=_document(RESOURCES, resources))
        await self._call("Update", request, empty_pb2.Empty)

    async def pids(self, id_: str) -> list[int]:
        answer = await self._call("Pids", task_pb2.PidsRequest(id=id_), task_pb2.PidsResponse)
        return [process.pid for process in answer.processes]

    async def stats(self, id_: str) -> AnyMessage:
        """Usage as the shim packs it."""
        answer = await self._call("Stats", task_pb2.StatsRequest(id=id_), task_pb2.StatsResponse)
        return answer.stats

    async def shutdown(self, id_: str) -> None:
        """Ask the shim to end unless it still holds a container."""
        await self._call("Shutdown", task_pb2.ShutdownRequest(id=id_), empty_pb2.Empty)

    async def _call(self, method: str, request: Message, answer: type[M], *, limited: bool = True) -> M:
        limit = self._timeout if limited else None
        try:
            result = await self._client.call(self._service, method, request, answer, timeout=limit)
        except Unsupported:
            if self._known:
                raise
            self._version = 5 - self._version  # the other of 2 and 3
            result = await self._client.call(self._service, method, request, answer, timeout=limit)
        self._known = True
        return result

    @property
    def _service(self) -> str:
        return f"containerd.task.v{self._version}.Task"


def _document(type_url: str, document: Mapping[str, Any]) -> AnyMessage:
    return AnyMessage(type_url=type_url, value=json.dumps(document, separators=(",", ":")).encode())


def _nanoseconds(at: Timestamp) -> int:
    return max(at.seconds * 10**9 + at.nanos, 0)
