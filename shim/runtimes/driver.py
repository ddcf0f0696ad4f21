"""The interface between the life cycle and a runtime; nothing above it knows which runtime it drives.

A driver keeps nothing about a container that a restart would lose: every verb is given a `Target`, made from
the record. What it watches while the daemon lives (exits) it watches again after `adopt`.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from oci.features import HandlerFeatures as HandlerFeatures  # noqa: PLC0414 - part of this interface
from oci.workload import ContainerId, PodId
from shim.records import ProcessRef
from shim.rootfs import Rootfs


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a container's first process ended. `code` is 128 + n after signal n; None when it was lost.

    `kept` says that `adopt` would tell the same after a restart, as long as the container is not deleted.
    """

    code: int | None
    finished_at: int
    oom_killed: bool = False
    kept: bool = field(default=False, compare=False)


class Status(Enum):
    ABSENT = "absent"
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the machine shows of a container now. `exit` only with STOPPED or ABSENT, when it is known."""

    status: Status
    process: ProcessRef | None = None
    exit: Exit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An existing container, as far as a driver needs to find it again."""

    id: ContainerId
    pod_id: PodId
    directory: Path  # the container's own directory and bundle; rootfs is `directory / "rootfs"`
    log_path: Path | None
    tty: bool
    stdin: bool
    stdin_once: bool
    cgroup: str  # path below each hierarchy (v1) or below the root (v2), "" if unknown
    process: ProcessRef | None = None
    monitor: ProcessRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    process: ProcessRef
    monitor: ProcessRef | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A process to run beside the container's own. `process` is the OCI process object, complete."""

    process: Mapping[str, Any]
    timeout: float | None  # seconds, None is no limit
    output_limit: int = 16 * 1024 * 1024  # bytes a stream; the excess is dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    stdout: bytes
    stderr: bytes
    exit_code: int


class Output(Enum):
    """What a process writes to. With a terminal everything comes out of STDOUT."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A terminal's size in characters."""

    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """A process whose streams somebody holds while it runs. `process` is the OCI process object, complete.

    Its `terminal` says whether it gets one, which then has `size` from the beginning. Streams that are not
    asked for are /dev/null.
    """

    process: Mapping[str, Any]
    stdin: bool
    outputs: frozenset[Output]
    size: Size | None = None


class Session(Protocol):
    """The streams of a process, held by one client. Whoever opened it closes it."""

    @property
    def outputs(self) -> frozenset[Output]:
        """Those that `read` gives; each must be read to its end."""
        ...

    async def read(self, output: Output) -> bytes:
        """The next bytes, b"" at the end; one reader an output. Raises Full for one that was too slow."""
        ...

    async def write(self, data: bytes) -> None:
        """To the standard input; waits while it is full, and drops what can no longer be delivered."""
        ...

    def end_input(self) -> None:
        """The client sends nothing more."""
        ...

    async def resize(self, size: Size) -> None:
        """Of the terminal, if there is one."""
        ...

    async def wait(self) -> int | None:
        """Wait for the end; the exit code, None where it is not this session's to tell (attach).

        Raises what kept the process from running.
        """
        ...

    async def close(self) -> None:
        """Let go: an exec that runs is killed with all that it started, an attached container lives on."""
        ...


ExitListener = Callable[[ContainerId, Exit], None]
"""Called once for each container that ended, on the event loop, never from within a verb."""


class Driver(Protocol):
    """The verbs. Each raises a `CrispError` that names handler, verb and the runtime's own words."""

    @property
    def handler(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def features(self) -> HandlerFeatures: ...

    @property
    def needs_init(self) -> bool:
        """Whether each pod needs a first container (sandboxing runtimes)."""
        ...

    async def mount_rootfs(self, directory: Path, rootfs: Rootfs) -> Path:
        """Make the root file system readable at the returned path, so that users can be looked up."""
        ...

    async def unmount_rootfs(self, directory: Path) -> None:
        """Undo `mount_rootfs`; nothing mounted is success."""
        ...

    async def create(self, target: Target, spec: Mapping[str, Any]) -> Created:
        """Write config.json, create the container and watch it. On failure nothing of it is left."""
        ...

    async def start(self, target: Target) -> None:
        """Let the created container's process run."""
        ...

    async def kill(self, target: Target, signal: int, *, everything: bool = False) -> None:
        """Send a signal to the first process, or to all of the container's; absent is success."""
        ...

    async def delete(self, target: Target) -> None:
        """Remove what the runtime and the monitor hold, killing what still runs; absent is success."""
        ...

    async def observe(self, target: Target) -> Observed:
        """Look at the machine. Never raises for a container that is gone."""
        ...

    async def adopt(self, target: Target) -> Observed:
        """After a restart: observe, and watch again what still lives."""
        ...

    async def exec_sync(self, target: Target, request: ExecRequest) -> ExecResult:
        """Run to the end and collect the output. On timeout the whole process tree is dead: Deadline."""
        ...

    async def exec_stream(self, target: Target, request: StreamRequest) -> Session:
        """Start a process beside the container's own; it lives no longer than its session."""
        ...

    async def attach(self, target: Target) -> Session:
        """Take part in the container's own streams, from now on. Any number may do so."""
        ...

    async def dial(self, pod: PodId, network: str, port: int) -> socket.socket:
        """A connection to `localhost` in a pod; `network` is its namespace's path, "" for the host's.

        Not blocking; the caller closes it. Raises Absent when nothing listens, Deadline.
        """
        ...

    async def reopen_log(self, target: Target) -> None:
        """Write later output to a new file at the log path; the caller has renamed the old one."""
        ...

    async def update(self, target: Target, resources: Mapping[str, Any]) -> Callable[[], Awaitable[None]]:
        """Change the limits of a live container, all or nothing; returns the way back to what was.

        `resources` is an OCI linux.resources object with the members to change.
        """
        ...

    async def checkpoint(self, target: Target, *, images: Path, work: Path, limit: float | None) -> None:
        """Save a running container's memory into `images`; it runs on, also after a failure.

        Both directories exist. `limit` is in seconds, None for the driver's own. Only where
        `features.checkpoint` is set. Raises WrongState for a container that cannot be saved.
        """
        ...

    async def close(self) -> None:
        """Stop watching. Containers stay."""
        ...
