"""Asks one socket for lists and Status, at raised priority, until its input ends; then prints what each took.

A program of its own, because a thread of the one that makes the load would measure that one's waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from api.client import connect
from api.proto import cri_pb2
from benchmarks import place
from benchmarks.sides import Side

_PAUSE = 0.01  # seconds between two rounds
_NICE = -10


def main(socket: str) -> None:
    _go_first()
    with connect(Path(socket)) as client:
        calls: dict[str, tuple[Callable[[Any], object], object]] = {
            "ListPodSandbox": (client.runtime.ListPodSandbox, cri_pb2.ListPodSandboxRequest()),
            "ListContainers": (client.runtime.ListContainers, cri_pb2.ListContainersRequest()),
            "Status": (client.runtime.Status, cri_pb2.StatusRequest()),
            "Version": (client.runtime.Version, cri_pb2.VersionRequest()),
        }
        samples: dict[str, list[float]] = {name: [] for name in calls}
        client.runtime.Version(cri_pb2.VersionRequest())
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], _PAUSE)[0]:
            for name, (call, request) in calls.items():
                began = perf_counter()
                call(request)
                samples[name].append((perf_counter() - began) * 1000)
    print(json.dumps(samples))


def listen(side: Side, during: Callable[[], object]) -> dict[str, list[float]]:
    """Milliseconds of each call that this program made while `during` ran."""
    command = [sys.executable, "-m", "benchmarks.lister", str(side.socket)]
    asking = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=place.TREE, text=True
    )
    assert asking.stdout is not None
    asking.stdout.readline()  # it is connected
    try:
        during()
    finally:
        said, _ = asking.communicate("", timeout=60)
    samples: dict[str, list[float]] = json.loads(said)
    return samples


def _go_first() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    os.setsid()
    with contextlib.suppress(FileNotFoundError):  # where the kernel shares by sessions first (sched(7))
        Path("/proc/self/autogroup").write_text(str(_NICE))


if __name__ == "__main__":
    main(sys.argv[1])
