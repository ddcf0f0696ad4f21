"""kubelet itself on each side: how soon its static pods run, and what the daemon uses while they only run.

The same kubelet with the same settings, one at a time: once it looks at the runtime every second (PLEG), once
it also watches its events (Evented PLEG).
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from api.client import Client
from api.proto import cri_pb2
from benchmarks import memory
from benchmarks.images import WORKLOAD
from benchmarks.report import Row
from benchmarks.run import Run, Samples, eight
from benchmarks.sides import MARK, Side
from tests.kubelet.kubelet import NODE, Kubelet, own_root, serving
from tests.kubelet.manifests import pod

_SETTINGS = {"syncFrequency": "1m", "fileCheckFrequency": "20s"}  # its defaults; inotify tells it of a file
_EVENTED = {**_SETTINGS, "featureGates": {"EventedPLEG": True}}
_MODES: Mapping[str, dict[str, Any]] = {"": _SETTINGS, ", Evented PLEG": _EVENTED}
_LOOK = 0.02  # seconds between two questions for the state of one pod
_LOOK_AT_MANY = 0.1  # the same for all of them, whose answer costs kubelet more
_PERIOD = 1.0  # seconds between two of kubelet's looks at the runtime

_Taken = dict[str, list[float]]


def measure(run: Run) -> list[Row]:
    """Starts in every life of a kubelet, the daemon's processor time in the last one."""
    samples: dict[str, Samples] = defaultdict(lambda: defaultdict(list))
    turns = run.turns(run.counts.kubelets)
    for number, turn in enumerate(turns, 1):
        for mode, settings in _MODES.items():
            for side in turn:
                taken = _life(run, side, settings, idle=number == len(turns))
                for name, values in taken.items():
                    samples[f"{name}{mode}"][side.name] += values
    return [row for mode in _MODES for row in _rows(samples, mode, run.counts.static)]


def _rows(samples: Mapping[str, Samples], mode: str, count: int) -> list[Row]:
    def row(name: str, unit: str, key: str, most: float | None = None, limit: float | None = None) -> Row:
        return Row(name=f"{name}{mode}", unit=unit, values=samples[f"{key}{mode}"], most=most, limit=limit)

    return [
        row("a static pod, file to Running", "ms", "one", most=1),
        row("· file to its container's start", "ms", "one began"),
        row(f"{count} static pods at once, files to all Running", "s", "all", most=1),
        row("· files to the last container's start", "s", "all began"),
        row("· a pod's start by kubelet's metric, mean", "s", "told"),
        row(f"processor time of daemon, monitors and shims, {count} idle pods", "% of one", "used", limit=2),
        row("· of the daemon alone", "% of one", "used alone"),
    ]


def _life(run: Run, side: Side, settings: dict[str, Any], *, idle: bool) -> _Taken:
    """One kubelet: pods one at a time, many at once, and if `idle` these left alone for a while."""
    taken: _Taken = defaultdict(list)
    node = Kubelet(
        directory=Path(tempfile.mkdtemp(dir=run.directory, prefix="kubelet-")),
        endpoint=f"unix://{side.socket}",
        cgroup_root=own_root(run.top),
        settings=settings,
    )
    with serving(node):
        try:
            _one(run, side, node, "first", defaultdict(list))  # what is made once
            for number in range(run.counts.singles):
                # Its looks fall at another part of each start.
                time.sleep(_PERIOD * number / run.counts.singles)
                _one(run, side, node, f"single{number}", taken)
            _many(run, side, node, taken)
            if idle:
                _idle(run, side, node, taken)
            if "featureGates" in settings and not _metric(
                node, "kubelet_evented_pleg_connection_success_count"
            ):
                raise RuntimeError(f"kubelet did not get the events of {side.name}")
        finally:
            node.stop()
            _remove_pods(run.clients[side.name])
    return taken


def _one(run: Run, side: Side, node: Kubelet, name: str, taken: _Taken) -> None:
    until, began = _start(side, run.clients[side.name], node, [name], pause=_LOOK)
    taken["one"].append(until * 1000)
    taken["one began"].append(began * 1000)
    node.withdraw(name)
    node.until(lambda: not node.pods(), "no pod is left")


def _many(run: Run, side: Side, node: Kubelet, taken: _Taken) -> None:
    names = [f"static{number}" for number in range(run.counts.static)]
    before = _told(node)
    until, began = _start(side, run.clients[side.name], node, names, pause=_LOOK_AT_MANY)
    taken["all"].append(until)
    taken["all began"].append(began)
    taken["told"].append((_told(node) - before) / len(names))


def _start(
    side: Side, client: Client, node: Kubelet, names: Sequence[str], *, pause: float
) -> tuple[float, float]:
    """Seconds from the first manifest in its place until kubelet calls all Running, and to the last start."""
    drafts = [node.draft(_manifest(name)) for name in names]
    kept = node.connection()

    def run() -> bool:
        pods = node.pods(kept)
        return all(pods.get(name, {}).get("status", {}).get("phase") == "Running" for name in names)

    try:
        run()  # connected
        began, at = perf_counter(), time.time_ns()
        for draft in drafts:
            node.publish(draft)
        node.until(run, f"{len(names)} pods of {side.name} run", pause=pause)
        until = perf_counter() - began
    finally:
        kept.close()
    return until, (max(_started(client, name) for name in names) - at) / 1e9


def _manifest(name: str) -> dict[str, Any]:
    mark, _, value = MARK.partition("=")
    return pod(
        name,
        {
            "name": "main",
            "image": WORKLOAD,
            "env": [{"name": mark, "value": value}],
            "resources": {
                "requests": {"cpu": "10m", "memory": "16Mi"},
                "limits": {"cpu": "500m", "memory": "128Mi"},
            },
        },
    )


def _started(client: Client, name: str) -> int:
    """When the runtime started the pod's container, in nanoseconds of the epoch."""
    labels = {"io.kubernetes.pod.name": f"{name}-{NODE}"}
    asked = cri_pb2.ListContainersRequest(filter=cri_pb2.ContainerFilter(label_selector=labels))
    (listed,) = client.runtime.ListContainers(asked).containers
    status = client.runtime.ContainerStatus(cri_pb2.ContainerStatusRequest(container_id=listed.id)).status
    return int(status.started_at)


def _idle(run: Run, side: Side, node: Kubelet, taken: _Taken) -> None:
    """Of one processor, in percent; nobody but kubelet asks in the meantime."""
    time.sleep(run.counts.settling)
    began, alone, all_of_it = (
        perf_counter(),
        memory.processor_time(side.pid),
        memory.processor_time_of_all(side),
    )
    time.sleep(run.counts.idle)
    elapsed = (perf_counter() - began) * 1000
    taken["used alone"].append((memory.processor_time(side.pid) - alone) / elapsed * 100)
    taken["used"].append((memory.processor_time_of_all(side) - all_of_it) / elapsed * 100)
    states = [entry["status"].get("phase") for entry in node.pods().values()]
    if states != ["Running"] * run.counts.static:
        raise RuntimeError(f"the idle pods of {side.name} did not all run to the end: {states}")


def _told(node: Kubelet) -> float:
    """Seconds from kubelet's first sight of each pod until it found it running, of all its pods.

    The metric has each pod twice: at the start of its first sync, which is a metric of its own, and then.
    """
    both = _metric(node, "kubelet_pod_start_duration_seconds_sum")
    return both - _metric(node, "kubelet_pod_worker_start_duration_seconds_sum")


def _metric(node: Kubelet, name: str) -> float:
    """The sum of one metric's series, 0 while there is none."""
    text = node.get("/metrics").decode()
    found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


def _remove_pods(client: Client) -> None:
    """As kubelet would in time; once it has gone, or it would start them again."""
    runtime = client.runtime

    def remove(sandbox: str) -> None:
        runtime.StopPodSandbox(cri_pb2.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        runtime.RemovePodSandbox(cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=sandbox))

    eight(remove, [found.id for found in runtime.ListPodSandbox(cri_pb2.ListPodSandboxRequest()).items])
