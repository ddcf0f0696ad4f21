"""Watches one socket's events, at raised priority, for a number of ends; then tells how late each came."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.client import connect
from api.proto import cri_pb2
from benchmarks import beside
from benchmarks.sides import Side

_LIMIT = 20.0  # seconds that the events may take after the last end


def main(socket: str, count: int) -> None:
    beside.go_first()
    lags: list[float] = []
    began = time.time_ns()  # some keep earlier events for the first who comes
    with connect(Path(socket)) as client:
        events: Any = client.runtime.GetContainerEvents(cri_pb2.GetEventsRequest())
        client.runtime.Version(cri_pb2.VersionRequest())  # it is answered when the watch stands
        beside.ready()
        while len(lags) < count:
            event = next(events)
            now = time.time_ns()
            if event.container_event_type == cri_pb2.CONTAINER_STOPPED_EVENT:
                lags += [
                    (now - status.finished_at) / 1e6
                    for status in event.containers_statuses
                    if status.id == event.container_id and status.finished_at > began
                ]
        events.close()
    beside.tell(lags)


def watch(side: Side, count: int, during: Callable[[], object]) -> list[float]:
    """Milliseconds from each container's end, as its status has it, to the event of it.

    `during` must end `count` containers.
    """
    lags: list[float] = beside.run(
        "benchmarks.subscriber", str(side.socket), str(count), during=during, limit=_LIMIT
    )
    return lags


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
