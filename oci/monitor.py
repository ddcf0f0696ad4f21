"""What conmon is told and what it answers: argv, environment, sync pipe, control fifo, exit file.

Written for 2.1.6 (Debian 12) and 2.1.12 (Debian 13). Starts and reads nothing itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYNC_VARIABLE: Final = "_OCI_SYNCPIPE"
START_VARIABLE: Final = "_OCI_STARTPIPE"

START: Final = b"\0"
"""What releases conmon when written to the start pipe; the end of file does so too."""

REOPEN_LOG: Final = b"2 0 0\n"
"""The control message that makes conmon create `<log>.tmp` and rename it over the log path."""

SYNC_LIMIT: Final = 65536
"""Bytes at most of a sync answer: 8191 of the runtime's words, each of which JSON may write as six."""

SOCKET_PATH_LIMIT: Final = 107
"""Bytes of a unix socket's path (unix(7): sun_path holds 108 with its end mark)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """One container's monitor. Of the runtime's words, `runtime_arguments` stand before the verb."""

    program: Path
    id: str
    bundle: Path
    runtime: Path
    runtime_arguments: tuple[str, ...]
    runtime_options: tuple[str, ...]
    container_pid_file: Path
    monitor_pid_file: Path
    first_directory: Path  # gets a file `exit`
    last_directory: Path  # gets a file named by the id
    socket_directory: Path
    log_path: Path | None
    tty: bool
    stdin: bool
    stdin_once: bool
    systemd_cgroup: bool = False


def monitor_argv(monitor: Monitor) -> list[str]:
    """The command line of conmon.

    - `--no-sync-log`: without it conmon syncs the log to disk at each reopen and at the end, before it writes
      the exit file, so that a container's end is reported only when a busy disk lets it. What a power cut
      takes from the page cache is lost under the other runtimes too.
    - `--persist-dir` is what conmon writes to first (src/conmon.c), and it ends there when it cannot.
    - `--leave-stdin-open` unless the request says that stdin ends with its first client: without the flag
      the first client that goes away, or dies with the daemon, closes the container's stdin.
    """
    argv = [
        str(monitor.program),
        "--bundle", str(monitor.bundle),
        "--cid", monitor.id,
        "--cuuid", link_name(monitor.id),
        "--name", monitor.id,
        "--exit-dir", str(monitor.last_directory),
        "--persist-dir", str(monitor.first_directory),
        "--socket-dir-path", str(monitor.socket_directory),
        "--container-pidfile", str(monitor.container_pid_file),
        "--conmon-pidfile", str(monitor.monitor_pid_file),
        "--log-level", "error",
        "--log-path", f"k8s-file:{monitor.log_path}" if monitor.log_path is not None else "null",
        "--no-sync-log",
        "--runtime", str(monitor.runtime),
    ]  # fmt: skip
    for argument in monitor.runtime_arguments:
        argv += ["--runtime-arg", argument]
    for option in monitor.runtime_options:
        argv += ["--runtime-opt", option]
    if monitor.systemd_cgroup:
        argv.append("--systemd-cgroup")
    if monitor.tty:
        argv.append("--terminal")
    if monitor.stdin:
        argv.append("--stdin")
        if not monitor.stdin_once:
            argv.append("--leave-stdin-open")
    return argv


def monitor_environment(*, sync: int, start: int) -> dict[str, str]:
    """The variables that name the inherited descriptors of the sync and the start pipe."""
    return {SYNC_VARIABLE: str(sync), START_VARIABLE: str(start)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReply:
    """conmon's answer to create: the container's pid, or -1 and the runtime's words."""

    pid: int
    message: str = ""


def parse_sync(data: bytes) -> SyncReply | None:
    """The answer in what has been read so far, None while its line is not complete.

    Bytes that are no UTF-8 (the runtime's words are passed on raw) are replaced. Raises ValueError for a
    line that is no answer.
    """
    line, ended, _ = data.partition(b"\n")
    if not ended:
        return None
    shown = line[:200].decode("utf-8", "replace")
    try:
        answer = json.loads(line.decode("utf-8", "replace"), strict=False)
    except ValueError as error:
        raise ValueError(f"not a JSON object: {shown!r}") from error
    pid = answer.get("pid") if isinstance(answer, dict) else None
    if not isinstance(pid, int) or isinstance(pid, bool):
        raise ValueError(f"no pid in it: {shown!r}")
    message = answer.get("message", "")
    return SyncReply(pid=pid, message=message if isinstance(message, str) else str(message))


def parse_exit_code(data: bytes) -> int | None:
    """The content of an exit file: 0 to 255 as conmon writes it, None for anything else (-1 included)."""
    try:
        code = int(data.decode("ascii").strip())
    except ValueError:
        return None
    return code if 0 <= code <= 255 else None


def parse_pid(data: bytes) -> int | None:
    """The content of a pid file, None when it holds no process number (yet)."""
    try:
        pid = int(data.decode("ascii").strip())
    except ValueError:
        return None
    return pid if pid > 0 else None


def link_name(container: str) -> str:
    """The name of the link to a bundle in the socket directory: 64 bits of the id, for shortness."""
    return container[:16]


def attach_path(socket_directory: Path, container: str) -> Path:
    """Where the attach socket of a container is reached: through a link to its bundle.

    Raises ValueError when the path is too long for a unix socket.
    """
    path = socket_directory / link_name(container) / "attach"
    if len(bytes(path)) > SOCKET_PATH_LIMIT:
        raise ValueError(f"{path} is longer than {SOCKET_PATH_LIMIT} bytes, too long for a unix socket")
    return path


LEFTOVERS: Final[Sequence[str]] = ("attach", "ctl", "winsz", "oom")
"""Names that conmon leaves in the bundle."""


def resize_message(height: int, width: int) -> bytes:
    """The control message that sets the terminal's size in characters; each is brought into 1..1000."""
    return b"1 %d %d\n" % (min(max(height, 1), 1000), min(max(width, 1), 1000))


def leftovers(bundle: Path) -> Iterator[Path]:
    """The paths in a bundle that belong to its monitor."""
    return (bundle / name for name in LEFTOVERS)
