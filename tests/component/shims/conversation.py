"""One scripted conversation with a shim over ttrpc, and its transcript, in which nothing is left to chance.

Numbers of processes, times and paths are replaced by words, so that what two shims say can be compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from oci.errors import CrispError
from shim.runtimes.shimv2 import addresses, bootstrap
from shim.runtimes.shimv2.proto import process_pb2, runc_options_pb2, task_pb2
from shim.runtimes.shimv2.task import PROCESS, RESOURCES
from shim.runtimes.shimv2.ttrpc.client import Client, ConnectionLost
from tests.machine import PATIENCE

M = TypeVar("M", bound=Message)

LISTENS = "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done"
GOES = (ConnectionLost,)


@dataclass(frozen=True, kw_only=True)
class Said:
    """One step: what was asked, and the kind of the refusal ("" for none), what it says, the answer."""

    step: str
    refusal: str = ""
    words: str = ""
    answer: dict[str, Any] = field(default_factory=dict)


@dataclass
class Place:
    """A shim's directory, a bundle, and fifos."""

    base: Path
    rootfs: Path
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    said: list[Said] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    shim: int = 0

    @property
    def bundle(self) -> Path:
        return self.base / self.id

    @property
    def group(self) -> str:
        return f"/crisp-test-shims/{self.id}"

    def make(self) -> None:
        self.bundle.mkdir(parents=True)
        os.mkfifo(self.bundle / "log", 0o700)
        self.open.append(os.open(self.bundle / "log", os.O_RDONLY | os.O_NONBLOCK))
        (self.bundle / "config.json").write_text(json.dumps(self.config()))

    def config(self) -> dict[str, Any]:
        return {
            "ociVersion": "1.0.2",
            "process": process("sh", "-c", LISTENS),
            "root": {"path": str(self.rootfs), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {
                "cgroupsPath": self.group,
                "namespaces": [{"type": kind} for kind in ("mount", "ipc", "uts", "network", "pid")],
                "resources": {"memory": {"limit": 64 << 20, "swap": 64 << 20}},
            },
        }

    def fifo(self, name: str) -> str:
        path = self.bundle / name
        os.mkfifo(path, 0o700)
        self.open.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return str(path)

    def close(self) -> None:
        for descriptor in self.open:
            os.close(descriptor)


def process(*args: str) -> dict[str, Any]:
    return {
        "terminal": False, "user": {"uid": 0, "gid": 0}, "args": list(args), "env": ["PATH=/bin"], "cwd": "/",
    }  # fmt: skip


def start(program: Path, place: Place, *, params: bool, events: str = "") -> bootstrap.Reply:
    """Run the program's `start`; what it printed."""
    argv = bootstrap.arguments(program, place.id, "start", events=events)
    given = bootstrap.params(place.id, socket_dir=place.base / "s", events=events, options=None)
    (place.base / "s").mkdir(exist_ok=True)
    done = subprocess.run(
        argv,
        input=given if params else b"",
        env={**os.environ, **bootstrap.environment(directory=place.bundle, events=events)},
        cwd=place.bundle,
        capture_output=True,
        check=False,
        timeout=30 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return bootstrap.parse_reply(done.stdout)


async def converse(
    reply: bootstrap.Reply, place: Place, *, options: Message | None, alien: Message | None = None
) -> list[Said]:
    """The whole conversation. `alien` are options that the shim does not take."""
    connection = await addresses.connect(addresses.parse_address(reply.address))
    client = Client(connection, name="shim", metadata={"containerd-namespace-ttrpc": bootstrap.NAMESPACE})
    try:
        talk = _Talk(client, f"containerd.task.v{reply.version}.Task", place)
        await _script(talk, options, alien)
    finally:
        client.close()
    return place.said


async def _script(talk: _Talk, options: Message | None, alien: Message | None) -> None:
    place, id_ = talk.place, talk.place.id
    await talk("Connect", task_pb2.ConnectRequest(id=id_), task_pb2.ConnectResponse, "version")
    place.shim = (
        await talk.call("Connect", task_pb2.ConnectRequest(id=id_), task_pb2.ConnectResponse)
    ).shim_pid
    await talk("State", task_pb2.StateRequest(id=id_), task_pb2.StateResponse)
    for name in (
        "Start",
        "Kill",
        "Delete",
        "Wait",
        "Pids",
        "Stats",
        "Pause",
        "ResizePty",
        "CloseIO",
        "Update",
    ):
        await talk(name, REQUESTS[name](id=id_), empty_pb2.Empty)
    create = task_pb2.CreateTaskRequest(
        id=id_, bundle=str(place.bundle), stdout=place.fifo("out"), stderr=place.fifo("err")
    )
    if alien is not None:
        wrong = task_pb2.CreateTaskRequest()
        wrong.CopyFrom(create)
        _pack(wrong, alien)
        await talk("Create", wrong, task_pb2.CreateTaskResponse)
    _pack(create, options)
    await talk("Create", create, task_pb2.CreateTaskResponse)
    await talk("Create", create, task_pb2.CreateTaskResponse)
    await talk("State", task_pb2.StateRequest(id=id_), task_pb2.StateResponse)
    await talk("Pause", task_pb2.PauseRequest(id=id_), empty_pb2.Empty)
    await talk("Start", task_pb2.StartRequest(id=id_), task_pb2.StartResponse)
    await place_says(place, b"up")
    await talk("Start", task_pb2.StartRequest(id=id_), task_pb2.StartResponse)
    await talk("State", task_pb2.StateRequest(id=id_), task_pb2.StateResponse)
    await talk("Connect", task_pb2.ConnectRequest(id=id_), task_pb2.ConnectResponse, "version")
    await talk("Delete", task_pb2.DeleteRequest(id=id_), task_pb2.DeleteResponse)
    await talk("Pids", task_pb2.PidsRequest(id=id_), task_pb2.PidsResponse, "processes")
    await talk("Stats", task_pb2.StatsRequest(id=id_), task_pb2.StatsResponse, "stats.value")
    await _execs(talk)
    await talk("Pause", task_pb2.PauseRequest(id=id_), empty_pb2.Empty)
    await talk("State", task_pb2.StateRequest(id=id_), task_pb2.StateResponse)
    await talk("Pause", task_pb2.PauseRequest(id=id_), empty_pb2.Empty)
    await talk("Start", task_pb2.StartRequest(id=id_), task_pb2.StartResponse)
    await talk("Delete", task_pb2.DeleteRequest(id=id_), task_pb2.DeleteResponse)
    await talk("Resume", task_pb2.ResumeRequest(id=id_), empty_pb2.Empty)
    await talk("Resume", task_pb2.ResumeRequest(id=id_), empty_pb2.Empty)
    update = task_pb2.UpdateTaskRequest(id=id_)
    update.resources.type_url = RESOURCES
    update.resources.value = json.dumps({"memory": {"limit": 48 << 20, "swap": 48 << 20}}).encode()
    await talk("Update", update, empty_pb2.Empty)
    await talk("CloseIO", task_pb2.CloseIORequest(id=id_, stdin=True), empty_pb2.Empty)
    await talk("Shutdown", task_pb2.ShutdownRequest(id=id_), empty_pb2.Empty)
    waiting = talk.later("Wait", task_pb2.WaitRequest(id=id_), task_pb2.WaitResponse)
    await talk("Kill", task_pb2.KillRequest(id=id_, signal=15), empty_pb2.Empty)
    await waiting()
    await talk("State", task_pb2.StateRequest(id=id_), task_pb2.StateResponse)
    await talk("Kill", task_pb2.KillRequest(id=id_, signal=9), empty_pb2.Empty)
    await talk("Start", task_pb2.StartRequest(id=id_), task_pb2.StartResponse)
    await talk("Pause", task_pb2.PauseRequest(id=id_), empty_pb2.Empty)
    exec_ = _exec(talk, "late", "true")
    await talk("Exec", exec_, empty_pb2.Empty)
    await talk("Wait", task_pb2.WaitRequest(id=id_), task_pb2.WaitResponse)
    await talk("Delete", task_pb2.DeleteRequest(id=id_), task_pb2.DeleteResponse)
    await talk("State", task_pb2.StateRequest(id=id_), task_pb2.StateResponse)
    await talk("Delete", task_pb2.DeleteRequest(id=id_), task_pb2.DeleteResponse)
    with contextlib.suppress(*GOES):  # it may be gone before its answer comes
        await talk.call("Shutdown", task_pb2.ShutdownRequest(id=id_), empty_pb2.Empty)


async def _execs(talk: _Talk) -> None:
    id_ = talk.place.id
    ended = _exec(talk, "ended", "sh", "-c", "exit 3")
    await talk("Exec", ended, empty_pb2.Empty)
    await talk("Exec", ended, empty_pb2.Empty)
    await talk("State", task_pb2.StateRequest(id=id_, exec_id="ended"), task_pb2.StateResponse)
    await talk("Kill", task_pb2.KillRequest(id=id_, exec_id="ended", signal=9), empty_pb2.Empty)
    waiting = talk.later("Wait", task_pb2.WaitRequest(id=id_, exec_id="ended"), task_pb2.WaitResponse)
    await talk("Start", task_pb2.StartRequest(id=id_, exec_id="ended"), task_pb2.StartResponse)
    await waiting()
    await talk("State", task_pb2.StateRequest(id=id_, exec_id="ended"), task_pb2.StateResponse)
    await talk("Start", task_pb2.StartRequest(id=id_, exec_id="ended"), task_pb2.StartResponse)
    await talk("Kill", task_pb2.KillRequest(id=id_, exec_id="ended", signal=9), empty_pb2.Empty)
    await talk("Delete", task_pb2.DeleteRequest(id=id_, exec_id="ended"), task_pb2.DeleteResponse)
    await talk("State", task_pb2.StateRequest(id=id_, exec_id="ended"), task_pb2.StateResponse)
    killed = _exec(talk, "killed", "sleep", "100")
    await talk("Exec", killed, empty_pb2.Empty)
    await talk("Start", task_pb2.StartRequest(id=id_, exec_id="killed"), task_pb2.StartResponse)
    await talk("State", task_pb2.StateRequest(id=id_, exec_id="killed"), task_pb2.StateResponse)
    await talk("Delete", task_pb2.DeleteRequest(id=id_, exec_id="killed"), task_pb2.DeleteResponse)
    waiting = talk.later("Wait", task_pb2.WaitRequest(id=id_, exec_id="killed"), task_pb2.WaitResponse)
    await talk("Kill", task_pb2.KillRequest(id=id_, exec_id="killed", signal=9), empty_pb2.Empty)
    await waiting()
    await talk("Delete", task_pb2.DeleteRequest(id=id_, exec_id="killed"), task_pb2.DeleteResponse)
    never = _exec(talk, "never", "nonesuch")
    await talk("Exec", never, empty_pb2.Empty)
    await talk("Start", task_pb2.StartRequest(id=id_, exec_id="never"), task_pb2.StartResponse)
    await talk("State", task_pb2.StateRequest(id=id_, exec_id="never"), task_pb2.StateResponse)
    await talk("Delete", task_pb2.DeleteRequest(id=id_, exec_id="never"), task_pb2.DeleteResponse)


REQUESTS: dict[str, type[Any]] = {
    "Start": task_pb2.StartRequest, "Kill": task_pb2.KillRequest, "Delete": task_pb2.DeleteRequest,
    "Wait": task_pb2.WaitRequest, "Pids": task_pb2.PidsRequest, "Stats": task_pb2.StatsRequest,
    "Pause": task_pb2.PauseRequest, "ResizePty": task_pb2.ResizePtyRequest,
    "CloseIO": task_pb2.CloseIORequest, "Update": task_pb2.UpdateTaskRequest,
}  # fmt: skip


def _exec(talk: _Talk, exec_id: str, *args: str) -> task_pb2.ExecProcessRequest:
    request = task_pb2.ExecProcessRequest(
        id=talk.place.id,
        exec_id=exec_id,
        stdout=talk.place.fifo(f"{exec_id}.out"),
        stderr=talk.place.fifo(f"{exec_id}.err"),
    )
    request.spec.type_url = PROCESS
    request.spec.value = json.dumps(process(*args)).encode()
    return request


def _pack(request: task_pb2.CreateTaskRequest, options: Message | None) -> None:
    if options is not None:
        request.options.type_url = options.DESCRIPTOR.full_name
        request.options.value = options.SerializeToString()


async def place_says(place: Place, words: bytes) -> None:
    """Wait until the container has written."""
    loop = asyncio.get_running_loop()
    descriptor = place.open[1]
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(10 * PATIENCE):
            await readable.wait()
        assert os.read(descriptor, 4096).startswith(words)
    finally:
        loop.remove_reader(descriptor)


class _Talk:
    """Calls, each of which is written down."""

    def __init__(self, client: Client, service: str, place: Place) -> None:
        self._client = client
        self._service = service
        self.place = place

    async def call(self, method: str, request: Message, answer: type[M]) -> M:
        return await self._client.call(self._service, method, request, answer, timeout=20 * PATIENCE)

    async def __call__(self, method: str, request: Message, answer: type[M], *vague: str) -> None:
        step = f"{method} {getattr(request, 'exec_id', '')}".rstrip()
        try:
            said = await self.call(method, request, answer)
        except ConnectionLost:
            raise
        except CrispError as error:
            self.place.said.append(Said(step=step, refusal=error.kind, words=self._plain(error.message)))
            return
        self.place.said.append(Said(step=step, answer=self._fields(said, vague)))

    def later(self, method: str, request: Message, answer: type[M]) -> Callable[[], Awaitable[None]]:
        """Call now, and write it down when it is awaited."""
        task = asyncio.ensure_future(self.call(method, request, answer))

        async def written() -> None:
            said = await task
            self.place.said.append(Said(step=method, answer=self._fields(said, ())))

        return written

    def _fields(self, said: Message, vague: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for descriptor, value in said.ListFields():
            name = descriptor.name
            if name.endswith("pid"):
                value = "a number"
            elif name == "exited_at":
                value = "a time"
            elif name == "status":
                value = process_pb2.Status.Name(value)
            elif name == "stats":
                value = value.type_url
            elif name in vague:
                value = "something"
            elif isinstance(value, str):
                value = self._plain(value)
            found[name] = value
        return found

    def _plain(self, words: str) -> str:
        words = words.replace(str(self.place.bundle), "BUNDLE").replace(self.place.id, "ID")
        words = re.sub(r"exit status \d+|\b[0-9a-f]{64}\b|pid \d+", "…", words)
        return words.partition("\n")[0]


def runc_options(root: Path) -> Message:
    return runc_options_pb2.Options(root=str(root))
