"""What stands for a virtual machine or a sandbox: a process of the node, whose death ends the containers.

It outlives its shim, as those do. Its number is all that is told of what runs inside.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

_KINDS = {
    "io.kubernetes.cri.container-type": "io.kubernetes.cri.sandbox-id",
    "io.kubernetes.cri-o.ContainerType": "io.kubernetes.cri-o.SandboxID",
}


def kind_of(config: dict[str, object]) -> tuple[str, str]:
    """ "sandbox", "container" or "" (alone), and the sandbox's id."""
    notes = config.get("annotations") or {}
    assert isinstance(notes, dict)
    for kind, sandbox in _KINDS.items():
        if kind in notes:
            return str(notes[kind]), str(notes.get(sandbox, ""))
    return "", ""


def start(state: Path, id_: str) -> int:
    """A new one; its number."""
    place = state / id_
    place.mkdir(parents=True, exist_ok=True)
    child = subprocess.Popen(
        [f"{place}/machine", "infinity"], executable="/bin/sleep", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    child.returncode = 0  # reaped with all children
    (place / "machine-pid").write_text(str(child.pid))
    return child.pid


def find(state: Path, id_: str) -> int | None:
    """The number of one that lives."""
    try:
        pid = int((state / id_ / "machine-pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if words[0].endswith(f"{id_}/machine".encode()) else None


def end(state: Path, id_: str) -> None:
    """Kill it, if it lives."""
    if (pid := find(state, id_)) is not None:
        os.kill(pid, signal.SIGKILL)


def watch(pid: int, gone: Callable[[], None]) -> None:
    """Call `gone` on the loop when it has ended."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(pid)

    def ended() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        gone()

    loop.add_reader(descriptor, ended)
