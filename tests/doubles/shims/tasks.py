"""The Task service of a shim that is not there, over processes that are.

One object holds the containers and execs of one shim. What it refuses it refuses with the words and codes of
the shims (`refusals.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from shim.runtimes.shimv2.proto import process_pb2, runc_options_pb2, task_events_pb2, task_pb2
from tests.doubles.shims import counters, guest, refusals, sandbox
from tests.doubles.shims.below import Children, Failed, Runtime
from tests.doubles.shims.events import Publisher
from tests.doubles.shims.serving import EXISTS, NOT_FOUND, PRECONDITION, UNKNOWN, Refused
from tests.doubles.shims.streams import Streams
from tests.doubles.shims.ways import Ways

M = TypeVar("M", bound=Message)

STATS = {1: "io.containerd.cgroups.v1.Metrics", 2: "io.containerd.cgroups.v2.Metrics"}
_NO_SANDBOX = "BUG: Cannot start the container, since the sandbox hasn't been created"
_DRAIN = 2.0
_LEFT = 0.05  # seconds between the answer to Shutdown and the end


@dataclass
class Process:
    """A container's own process or an exec's."""

    id: str
    exec_id: str
    bundle: str
    streams: Streams
    spec: bytes = b""
    pid: int = 0  # the real one
    status: int = process_pb2.CREATED
    code: int = 0
    at: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Tasks:
    """`stop` ends the shim. `state` is a directory shared by all shims of the double. A kill for want of
    memory is told `oom_delay` seconds after the end, else before it.
    """

    def __init__(
        self,
        ways: Ways,
        *,
        id_: str,
        state: Path,
        runtime: str,
        children: Children,
        publisher: Publisher,
        stop: Callable[[], None],
        oom_delay: float = 0.0,
    ) -> None:
        self._ways = ways
        self._id = id_
        self._state = state
        self._program = runtime
        self._children = children
        self._publisher = publisher
        self._stop = stop
        self._oom_delay = oom_delay
        self._containers: dict[str, Process] = {}
        self._execs: dict[tuple[str, str], Process] = {}
        self._runtimes: dict[str, Runtime] = {}
        self._machine = 0
        self._sandbox = ""
        self._following: set[asyncio.Task[None]] = set()

    def methods(self) -> dict[tuple[str, str], Callable[[bytes], Awaitable[Message]]]:
        service = f"containerd.task.v{self._ways.task}.Task"
        made: dict[tuple[str, str], Callable[[bytes], Awaitable[Message]]] = {}

        def add(name: str, request: type[M], serve: Callable[[M], Awaitable[Message]]) -> None:
            made[service, name] = lambda payload: serve(request.FromString(payload))

        add("Create", task_pb2.CreateTaskRequest, self.create)
        add("Start", task_pb2.StartRequest, self.start)
        add("Exec", task_pb2.ExecProcessRequest, self.exec)
        add("State", task_pb2.StateRequest, self.state)
        add("Wait", task_pb2.WaitRequest, self.wait)
        add("Kill", task_pb2.KillRequest, self.kill)
        add("Delete", task_pb2.DeleteRequest, self.delete)
        add("Pids", task_pb2.PidsRequest, self.pids)
        add("Pause", task_pb2.PauseRequest, self.pause)
        add("Resume", task_pb2.ResumeRequest, self.resume)
        add("ResizePty", task_pb2.ResizePtyRequest, self.resize)
        add("CloseIO", task_pb2.CloseIORequest, self.close_io)
        add("Update", task_pb2.UpdateTaskRequest, self.update)
        add("Stats", task_pb2.StatsRequest, self.stats)
        add("Connect", task_pb2.ConnectRequest, self.connect)
        add("Shutdown", task_pb2.ShutdownRequest, self.shutdown)
        return made

    async def connect(self, request: task_pb2.ConnectRequest) -> Message:
        container = self._containers.get(request.id)
        pid = 0 if container is None else self._told(container)
        return task_pb2.ConnectResponse(shim_pid=os.getpid(), task_pid=pid)

    async def create(self, request: task_pb2.CreateTaskRequest) -> Message:
        if request.id in self._containers:
            if self._ways.runc:  # it asks the runtime, which then knows
                words = "runc create failed: container with given ID already exists"
                raise Refused(UNKNOWN, refusals.words(self._ways, "create", words))
            raise Refused(EXISTS, f"container {request.id}: already exists")
        refusals.check_options(self._ways, request)
        bundle = Path(request.bundle)
        config: dict[str, Any] = json.loads((bundle / "config.json").read_bytes())
        if self._ways.state:
            (bundle / self._ways.state).write_text("{}")
        kind, of = sandbox.kind_of(config)
        place = self._state / request.id
        place.mkdir(parents=True, exist_ok=True)
        try:
            if self._ways.guest:
                await self._enter_machine(request.id, kind, of)
                bundle = guest.bundle(self._ways, place, config, request)
            (place / "root").write_text(str(self._root(request)))
            process = Process(
                id=request.id,
                exec_id="",
                bundle=request.bundle,
                streams=Streams(
                    stdin=request.stdin,
                    stdout=request.stdout,
                    stderr=request.stderr,
                    terminal=request.terminal,
                ),
            )
            await self._run_with_streams(
                process, place, "create", "--bundle", str(bundle), "--pid-file", str(place / "pid")
            )
        except BaseException:
            self._leave(request.id)
            raise
        self._containers[request.id] = process
        await self._tell("create", request.id)
        self._follow(process)
        return task_pb2.CreateTaskResponse(pid=self._told(process))

    async def start(self, request: task_pb2.StartRequest) -> Message:
        process = self._find(request.id, request.exec_id)
        if request.exec_id:
            if process.status != process_pb2.CREATED:
                raise Refused(UNKNOWN, f"cannot start a {_word(process)} process")
            place = self._state / request.id
            spec = place / f"{request.exec_id}.json"
            spec.write_bytes(process.spec)
            await self._run_with_streams(
                process, place, "exec", "--process", str(spec), "--detach",
                "--pid-file", str(place / f"{request.exec_id}.pid"),
                *(("--tty",) if process.streams.terminal else ()),
            )  # fmt: skip
            process.status = process_pb2.RUNNING
            self._follow(process)
        else:
            if process.status != process_pb2.CREATED:
                raise Refused(UNKNOWN, f"cannot start a {_word(process)} process")
            await self._call(request.id, "start", request.id)
            if process.status == process_pb2.CREATED:
                process.status = process_pb2.RUNNING
        await self._tell("exec-started" if request.exec_id else "start", request.id)
        return task_pb2.StartResponse(pid=self._told(process))

    async def exec(self, request: task_pb2.ExecProcessRequest) -> Message:
        container = self._find(request.id, "")
        if (request.id, request.exec_id) in self._execs:
            raise Refused(EXISTS, f"id {request.exec_id}: already exists")
        if container.status == process_pb2.STOPPED:
            raise Refused(UNKNOWN, "cannot exec in a stopped state")
        self._execs[request.id, request.exec_id] = Process(
            id=request.id,
            exec_id=request.exec_id,
            bundle=container.bundle,
            spec=request.spec.value,
            streams=Streams(
                stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal
            ),
        )
        await self._tell("exec-added", request.id)
        return empty_pb2.Empty()

    async def state(self, request: task_pb2.StateRequest) -> Message:
        process = self._find(request.id, request.exec_id)
        answer = task_pb2.StateResponse(
            id=process.exec_id or process.id,
            bundle=process.bundle,
            pid=self._told(process),
            status=process.status,  # type: ignore[arg-type]
            stdin=process.streams.paths[0],
            stdout=process.streams.paths[1],
            stderr=process.streams.paths[2],
            terminal=process.streams.terminal,
            exit_status=process.code,
        )
        self._tell_time(answer, process)
        return answer

    async def wait(self, request: task_pb2.WaitRequest) -> Message:
        process = self._find(request.id, request.exec_id)
        await process.done.wait()
        answer = task_pb2.WaitResponse(exit_status=process.code)
        answer.exited_at.FromNanoseconds(process.at)
        return answer

    async def kill(self, request: task_pb2.KillRequest) -> Message:
        process = self._find(request.id, request.exec_id)
        if process.status == process_pb2.STOPPED or (request.exec_id and not process.pid):
            if process.pid:
                raise Refused(NOT_FOUND, "process already finished: not found")
            raise Refused(PRECONDITION, "process not created: failed precondition")
        if request.exec_id:
            try:
                os.kill(process.pid, request.signal)
            except ProcessLookupError:
                raise Refused(NOT_FOUND, "process already finished: not found") from None
        else:
            everyone = ("--all",) if request.all else ()
            await self._call(request.id, "kill", *everyone, request.id, str(request.signal))
        return empty_pb2.Empty()

    async def delete(self, request: task_pb2.DeleteRequest) -> Message:
        process = self._find(request.id, request.exec_id)
        if process.status in (process_pb2.RUNNING, process_pb2.PAUSED):
            raise Refused(UNKNOWN, f"cannot delete a {_word(process)} process")
        answer = task_pb2.DeleteResponse(pid=self._told(process))
        if not request.exec_id:
            await self._call(request.id, "delete", "--force", request.id)
            if process.status == process_pb2.CREATED:
                await asyncio.wait_for(process.done.wait(), _DRAIN)
        answer.exit_status = process.code
        self._tell_time(answer, process)
        await asyncio.to_thread(process.streams.copied, _DRAIN)
        process.streams.close()
        if request.exec_id:
            del self._execs[request.id, request.exec_id]
        else:
            del self._containers[request.id]
            self._leave(request.id)
            await self._tell("delete", request.id)
        return answer

    async def pids(self, request: task_pb2.PidsRequest) -> Message:
        process = self._find(request.id, "")
        if self._ways.guest:
            found = [self._told(process)]
        else:
            found = await self._runtimes[request.id].processes(request.id)
        return task_pb2.PidsResponse(processes=[process_pb2.ProcessInfo(pid=pid) for pid in found])

    async def pause(self, request: task_pb2.PauseRequest) -> Message:
        process = self._find(request.id, "")
        if process.status != process_pb2.RUNNING:
            if process.status == process_pb2.CREATED:
                raise Refused(UNKNOWN, "cannot pause task in created state")
            raise Refused(UNKNOWN, f"cannot pause a {_word(process)} container")
        await self._call(request.id, "pause", request.id)
        process.status = process_pb2.PAUSED
        await self._tell("paused", request.id)
        return empty_pb2.Empty()

    async def resume(self, request: task_pb2.ResumeRequest) -> Message:
        process = self._find(request.id, "")
        if process.status != process_pb2.PAUSED:
            raise Refused(UNKNOWN, f"cannot resume a {_word(process)} process")
        await self._call(request.id, "resume", request.id)
        process.status = process_pb2.RUNNING
        await self._tell("resumed", request.id)
        return empty_pb2.Empty()

    async def resize(self, request: task_pb2.ResizePtyRequest) -> Message:
        process = self._find(request.id, request.exec_id)
        if process.status == process_pb2.STOPPED:
            raise Refused(UNKNOWN, "cannot resize a stopped process")
        process.streams.resize(request.width, request.height)
        return empty_pb2.Empty()

    async def close_io(self, request: task_pb2.CloseIORequest) -> Message:
        process = self._find(request.id, request.exec_id)
        if request.stdin:
            process.streams.end_input()
        return empty_pb2.Empty()

    async def update(self, request: task_pb2.UpdateTaskRequest) -> Message:
        self._find(request.id, "")
        resources = self._state / request.id / "resources.json"
        resources.write_bytes(request.resources.value)
        await self._call(request.id, "update", "--resources", str(resources), request.id)
        return empty_pb2.Empty()

    async def stats(self, request: task_pb2.StatsRequest) -> Message:
        process = self._find(request.id, "")
        version, metrics = await asyncio.to_thread(counters.usage, process.pid)
        answer = task_pb2.StatsResponse()
        answer.stats.type_url = STATS[version]
        answer.stats.value = metrics.SerializeToString()
        return answer

    async def shutdown(self, request: task_pb2.ShutdownRequest) -> Message:
        if not self._containers or request.now:
            asyncio.get_running_loop().call_later(_LEFT, self._stop)
        return empty_pb2.Empty()

    # ---- the parts

    async def _tell(self, topic: str, container: str) -> None:
        """Every event's first field is the container."""
        await self._publisher.publish(f"/tasks/{topic}", task_events_pb2.TaskOOM(container_id=container))

    def _tell_time(self, answer: task_pb2.StateResponse | task_pb2.DeleteResponse, process: Process) -> None:
        """Go tells its zero time where nothing has ended."""
        if process.at:
            answer.exited_at.FromNanoseconds(process.at)
        elif self._ways.go:
            answer.exited_at.seconds = -62135596800

    def _find(self, id_: str, exec_id: str) -> Process:
        container = self._containers.get(id_)
        if container is None:
            raise Refused(NOT_FOUND, "container not created: not found")
        if not exec_id:
            return container
        process = self._execs.get((id_, exec_id))
        if process is None:
            raise Refused(NOT_FOUND, f"process does not exist {exec_id}: not found")
        return process

    def _told(self, process: Process) -> int:
        return self._machine if self._ways.guest else process.pid

    def _root(self, request: task_pb2.CreateTaskRequest) -> Path:
        program, root = self._program, self._state / "root"
        if request.options.type_url == "containerd.runc.v1.Options":
            options = runc_options_pb2.Options.FromString(request.options.value)
            program = options.binary_name or program
            root = Path(options.root or "/run/containerd/runc") / "crisp"
        directory = self._state / request.id
        self._runtimes[request.id] = Runtime(program, str(root), directory, self._children)
        return root

    async def _enter_machine(self, id_: str, kind: str, of: str) -> None:
        """A sandbox makes the machine that its containers find."""
        if kind == "container":
            pid = sandbox.find(self._state, of)
            if pid is None:
                raise Refused(UNKNOWN, _NO_SANDBOX)
            self._sandbox = of
        elif self._sandbox:
            raise Refused(UNKNOWN, f"cannot create another sandbox in sandbox: {self._sandbox}")
        else:
            pid = await asyncio.to_thread(sandbox.start, self._state, id_)
            self._sandbox = id_
        if self._machine != pid:
            self._machine = pid
            sandbox.watch(pid, self._machine_died)

    def _machine_died(self) -> None:
        for process in [*self._containers.values(), *self._execs.values()]:
            if process.pid and process.status != process_pb2.STOPPED:
                os.kill(process.pid, signal.SIGKILL)

    def _leave(self, id_: str) -> None:
        self._runtimes.pop(id_, None)
        rootfs = self._state / id_ / "bundle/rootfs"
        if rootfs.is_mount():
            subprocess.Popen(["umount", "--lazy", rootfs]).returncode = 0
        if self._sandbox == id_:
            sandbox.end(self._state, id_)
            self._sandbox = ""
        if id_ not in self._containers:
            shutil.rmtree(self._state / id_, ignore_errors=True)

    async def _call(self, id_: str, *words: str) -> None:
        try:
            await self._runtimes[id_].call(*words)
        except Failed as error:
            raise Refused(UNKNOWN, refusals.words(self._ways, words[0], str(error))) from error

    async def _run_with_streams(self, process: Process, place: Path, *words: str) -> None:
        streams = process.streams
        socket = place / f"{process.exec_id or 'own'}.sock"
        try:
            streams.open(socket)
            console = ("--console-socket", str(socket)) if streams.terminal else ()
            await self._runtimes[process.id].call(*words, *console, process.id, given=streams.given)
            await asyncio.to_thread(streams.started)
        except (Failed, OSError) as error:
            streams.close()
            raise Refused(UNKNOWN, refusals.words(self._ways, words[0], str(error))) from error
        pid_file = words[words.index("--pid-file") + 1]
        process.pid = int(Path(pid_file).read_text())

    def _follow(self, process: Process) -> None:
        made = asyncio.get_running_loop().create_task(self._to_its_end(process))
        self._following.add(made)
        made.add_done_callback(self._following.discard)

    async def _to_its_end(self, process: Process) -> None:
        kills = None if process.exec_id else counters.kills_file(process.pid)
        process.code, process.at = await self._children.end(process.pid)
        process.status = process_pb2.STOPPED
        oom = kills is not None and re.search(r"^oom_kill [1-9]", kills.read_text(), re.MULTILINE)
        if oom and not self._oom_delay:
            await self._tell("oom", process.id)
        if not process.exec_id and self._sandbox == process.id:
            sandbox.end(self._state, process.id)
        process.done.set()
        if oom and self._oom_delay:
            await asyncio.sleep(self._oom_delay)
            await self._tell("oom", process.id)
        ended = task_events_pb2.TaskExit(
            container_id=process.id,
            id=process.exec_id or process.id,
            pid=self._told(process),
            exit_status=process.code,
        )
        ended.exited_at.FromNanoseconds(process.at)
        await self._publisher.publish("/tasks/exit", ended)


def _word(process: Process) -> str:
    return process_pb2.Status.Name(process.status).lower()  # type: ignore[arg-type]
