"""Asks one socket for lists and Status, at raised priority, until its input ends; tells what each took."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from api.client import connect
from api.proto import cri_pb2
from benchmarks import beside
from benchmarks.sides import Side

_PAUSE = 0.01  # seconds between two rounds


def main(socket: str) -> None:
    beside.go_first()
    with connect(Path(socket)) as client:
        calls: dict[str, tuple[Callable[[Any], object], object]] = {
            "ListPodSandbox": (client.runtime.ListPodSandbox, cri_pb2.ListPodSandboxRequest()),
            "ListContainers": (client.runtime.ListContainers, cri_pb2.ListContainersRequest()),
            "Status": (client.runtime.Status, cri_pb2.StatusRequest()),
            "Version": (client.runtime.Version, cri_pb2.VersionRequest()),
        }
        samples: dict[str, list[float]] = {name: [] for name in calls}
        client.runtime.Version(cri_pb2.VersionRequest())
        beside.ready()
        while not select.select([sys.stdin], [], [], _PAUSE)[0]:
            for name, (call, request) in calls.items():
                began = perf_counter()
                call(request)
                samples[name].append((perf_counter() - began) * 1000)
    beside.tell(samples)


def listen(side: Side, during: Callable[[], object]) -> dict[str, list[float]]:
    """Milliseconds of each call that this program made while `during` ran."""
    samples: dict[str, list[float]] = beside.run("benchmarks.lister", str(side.socket), during=during)
    return samples


if __name__ == "__main__":
    main(sys.argv[1])
