"""Programs beside the one that makes the load: they ask or listen at raised priority, and tell at their end.

Each is a program of its own, because a thread of the one that makes the load would measure that one's waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import place

_NICE = -10
_READY = "ready"


def go_first() -> None:
    """Have the kernel prefer this process to those that make the load."""
    os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    os.setsid()
    with contextlib.suppress(FileNotFoundError):  # where the kernel shares by sessions first (sched(7))
        Path("/proc/self/autogroup").write_text(str(_NICE))


def ready() -> None:
    """Tell the one that started this program that it may begin."""
    print(_READY, flush=True)


def tell(result: object) -> None:
    """The last word of such a program."""
    print(json.dumps(result))


def run(module: str, *arguments: str, during: Callable[[], object], limit: float = 60) -> Any:
    """What `python -m module` told about the time in which `during` ran.

    Its input ends when `during` returns; from then on it has `limit` seconds to tell.
    """
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=place.TREE, text=True
    ) as program:
        assert program.stdout is not None
        if program.stdout.readline().strip() != _READY:
            raise RuntimeError(f"{module} did not become ready")
        try:
            during()
            said, _ = program.communicate("", timeout=limit)
        except BaseException:
            program.kill()
            raise
    if program.returncode:
        raise RuntimeError(f"{module} ended with {program.returncode}")
    return json.loads(said)
