"""The command lines of OCI runtimes (runc, crun, youki and their kin), and what their failures mean.

Composes argv for every verb and reads the JSON log and the answer of `state`. Runs nothing and opens no
file. The runtimes' words were recorded from runc 1.1.5 and 1.1.15, crun 1.8.1 and 1.21, and youki 0.7; tests
hold the samples.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from oci.errors import Absent, CrispError, RuntimeFailed, WrongState


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """How a handler's runtime is called. `options` stand before every verb, `create_options` after create."""

    handler: str
    program: Path
    root: Path
    options: tuple[str, ...] = ()
    create_options: tuple[str, ...] = ()
    systemd_cgroup: bool = False


def global_arguments(runtime: Runtime, log: Path) -> tuple[str, ...]:
    """What stands before the verb, without the flag for systemd's cgroups (conmon adds that one itself)."""
    return (f"--root={runtime.root}", f"--log={log}", "--log-format=json", *runtime.options)


def _command(runtime: Runtime, log: Path, verb: str, *rest: str) -> list[str]:
    systemd = ["--systemd-cgroup"] if runtime.systemd_cgroup else []
    return [str(runtime.program), *global_arguments(runtime, log), *systemd, verb, *rest]


def start(runtime: Runtime, log: Path, container: str) -> list[str]:
    return _command(runtime, log, "start", container)


def state(runtime: Runtime, log: Path, container: str) -> list[str]:
    return _command(runtime, log, "state", container)


def kill(runtime: Runtime, log: Path, container: str, signal: int, *, everything: bool = False) -> list[str]:
    """The signal is always given, by number: youki demands one, and names differ between runtimes."""
    return _command(runtime, log, "kill", *(["--all"] if everything else []), container, str(signal))


def delete(runtime: Runtime, log: Path, container: str) -> list[str]:
    return _command(runtime, log, "delete", container)


def delete_by_force(runtime: Runtime, log: Path, container: str) -> list[str]:
    """Takes what runs as well, and what is torn. runc 1.2 and later wait 100 ms in it, whatever they find."""
    return _command(runtime, log, "delete", "--force", container)


def execute(
    runtime: Runtime,
    log: Path,
    container: str,
    *,
    process: Path,
    pid_file: Path,
    cgroup: str = "",
    console: Path | None = None,
    inner: Path | None = None,
) -> list[str]:
    """A process beside the container's own, in the foreground. `cgroup` is `[CONTROLLER:]SUBGROUP`.

    Its terminal is sent to the socket `console`; not all runtimes do that in the foreground. `inner` gets its
    number inside a sandbox.
    """
    group = [f"--cgroup={cgroup}"] if cgroup else []
    terminal = [f"--console-socket={console}"] if console is not None else []
    files = [f"--process={process}", f"--pid-file={pid_file}"]
    if inner is not None:
        files.append(f"--internal-pid-file={inner}")
    return _command(runtime, log, "exec", *files, *group, *terminal, container)


def checkpoint(runtime: Runtime, log: Path, container: str, *, images: Path, work: Path) -> list[str]:
    """CRIU's images go to `images`, its own log to `work`; the container runs on."""
    options = ["--leave-running", "--tcp-established", "--file-locks"]
    paths = [f"--image-path={images}", f"--work-path={work}"]
    return _command(runtime, log, "checkpoint", *paths, *options, container)


def kill_group(runtime: Runtime, log: Path, container: str, leader: int) -> list[str]:
    """SIGKILL to a process group of a sandbox, by the number that exec gave its leader (runsc)."""
    return _command(runtime, log, "kill", f"--pgid={leader}", container, "9")


def kill_process(runtime: Runtime, log: Path, container: str, pid: int) -> list[str]:
    """SIGKILL to one process of a sandbox, by the number that exec gave it (runsc)."""
    return _command(runtime, log, "kill", f"--pid={pid}", container, "9")


def resume(runtime: Runtime, log: Path, container: str) -> list[str]:
    """Let a paused container run on."""
    return _command(runtime, log, "resume", container)


def port_forward(runtime: Runtime, log: Path, container: str, *, stream: Path, port: int) -> list[str]:
    """Connect a port of the sandbox to a listening socket, once (runsc)."""
    return _command(runtime, log, "port-forward", f"--stream={stream}", container, str(port))


def update(runtime: Runtime, log: Path, container: str, *, resources: Path) -> list[str]:
    """Limits to change are read from a file, an OCI linux.resources object."""
    return _command(runtime, log, "update", f"--resources={resources}", container)


class Phase(Enum):
    """The `status` of `state` (runtime-spec, runtime.md#state); PAUSED is runc's and crun's addition."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeState:
    """What `state` printed; pid is 0 when no process is left."""

    phase: Phase
    pid: int


def parse_state(data: bytes) -> RuntimeState:
    """The output of `state`. Raises ValueError where it is not the specification's JSON object."""
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise ValueError(f"state printed no JSON: {_shown(data)!r}") from error
    if not isinstance(answer, dict):
        raise ValueError(f"state printed no JSON object: {_shown(data)!r}")
    pid = answer.get("pid", 0)
    try:
        phase = Phase(answer.get("status"))
    except ValueError as error:
        raise ValueError(f"state printed the status {answer.get('status')!r}") from error
    if pid == -1:  # runsc's for none
        pid = 0
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 0:
        raise ValueError(f"state printed the pid {pid!r}")
    return RuntimeState(phase=phase, pid=pid)


def parse_log(data: bytes) -> str:
    """The words of the last error in a JSON log, "" when there is none; other lines are skipped."""
    words = ""
    for line in data.splitlines():
        try:
            entry: Any = json.loads(line.decode("utf-8", "replace"), strict=False)
        except ValueError:
            continue
        if isinstance(entry, dict) and str(entry.get("level", "")).lower() in _ERROR_LEVELS:
            message = entry.get("msg", entry.get("message", ""))
            fields = entry.get("fields")  # youki logs through Rust's tracing, which nests the message
            if not message and isinstance(fields, dict):
                message = fields.get("message", "")
            # youki's may end with the addresses of its stack
            words = str(message).partition("\n\nStack backtrace:")[0] or words
    return words


_ERROR_LEVELS: Final = frozenset({"error", "fatal", "panic"})
_WORDS = 4096


def plain_words(output: bytes) -> str:
    """A runtime's output on one line, cut at its end, for when it kept no log."""
    return " ".join(output[-_WORDS:].decode("utf-8", "replace").split())


_PROGRAM: Final = re.compile(
    r"executable file .* not found"  # runc, crun: looked up on the container's PATH
    r"|executable .* not found in \$PATH|executable .* does not have correct permissions"  # youki
    r'|exec: ".*": (?:stat .*: )?(?:no such file or directory|permission denied|is a directory'
    r"|not a directory|exec format error|too many levels of symbolic links)"  # runc
    r"|open executable: "  # crun: there, but not a file that may be executed
    r"|the path `.*` (?:exists but it is not executable|is not a regular file)"  # crun 1.21
    r"|cannot open `.*`: (?:Not a directory|Too many levels of symbolic links)"
    r"|error finding executable \".*\" in PATH"  # runsc
    r"|the file \S+ was not found"  # Kata's agent
    r"|failed to load [^:]*: (?:no such file or directory|permission denied|exec format error|is a directory)"
    r"|exec(?:v|ve|vpe?)?[: ].*(?:ENOENT|EACCES|ENOEXEC|No such file or directory|Permission denied"
    r"|Exec format error)",
    re.DOTALL,
)
_ABSENT: Final = re.compile(
    r"container (?:.* )?does not exist"  # runc, youki
    r"|error opening file `.*/status`: No such file or directory"  # crun
    r"|cannot open directory '[^']*': No such file or directory"  # crun 1.8's delete
    r"|container state directory does not exist"  # youki
    r"|loading (?:container|sandbox)(?: \".*\")?: file does not exist"  # runsc
    r"|Container ID \(.*\) does not exist"  # kata-runtime 1.x
)
_NOT_RUNNING: Final = re.compile(
    r"cannot exec (?:in )?a (?:container that has )?stopped|container (?:.* )?is not running"
    r"|the container `.*` is not running|container not running|cannot start an already running container"
    r"|cannot start a container that has stopped|container is not in created state"
    r"|cannot exec a container that has stopped"
    r"|incompatible container status: `(?:Created|Running|Stopped)`"  # youki
    r"|sandbox is not running|container \".*\" not started"  # runsc
    r"|cannot (?:start|execute in) container \".*\" in state (?:running|stopped|created)",
    re.IGNORECASE,
)

_REFUSED_LIMIT = re.compile(
    r"unable to set memory limit|failed to write|write .*(invalid argument|device or resource busy)"
    r"|writing .*(invalid argument|device or resource busy|numerical result out of range)",
    re.IGNORECASE,
)
"""What runc and crun say when the kernel does not take a limit."""


def failure(runtime: Runtime, container: str, verb: str, words: str, *, status: int | None) -> CrispError:
    """What a failed verb means, by the runtime's own words.

    Absent: the runtime knows no such container. WrongState: its process does not run, or runs already, or the
    kernel does not take a limit. RuntimeFailed otherwise; its `program_missing` tells a fault of the user's
    program from one of the node.
    `status` is the exit status, negative for a signal, None when it did not end by itself.
    """
    how = ""
    if status is not None:
        how = f" (killed by signal {-status})" if status < 0 else f" (status {status})"
    said = words or "it said nothing"
    text = f"handler {runtime.handler}: {runtime.program.name} {verb} of container {container}{how}: {said}"
    if verb in ("create", "start", "exec") and _PROGRAM.search(words):
        return RuntimeFailed(text, verb=verb, program_missing=True)
    if verb != "create" and _ABSENT.search(words):
        return Absent(text)
    if _NOT_RUNNING.search(words) or (verb == "update" and _REFUSED_LIMIT.search(words)):
        return WrongState(text)
    return RuntimeFailed(text, verb=verb)


def criu_words(log: str) -> str:
    """The last errors of CRIU's log, "" without one."""
    errors = [line.partition("Error ")[2] for line in log.splitlines() if "Error " in line]
    return "; ".join(errors[-3:])


def _shown(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
