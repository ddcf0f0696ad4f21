"""What being watched costs: usage and metrics, a node's worth of polling, events.

Each call for usage comes more than a second after the one before, so that no side can answer from what it
has just read.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter

from api.client import Client
from api.proto import cri_pb2
from benchmarks import memory, subscriber, work
from benchmarks.report import Row
from benchmarks.run import Run, Samples, eight
from benchmarks.sides import Side
from benchmarks.work import Pod

_APART = 1.2  # seconds between two calls for usage
_PERIOD = 10.0  # seconds between two rounds of lists, as kubelet's
_STATUS_PERIOD = 60.0  # seconds in which the status of each pod is asked for once


def stats(run: Run) -> list[Row]:
    """Usage and metrics of many pods, each reading a new one."""
    calls: dict[str, Callable[[Client], object]] = {
        "ListContainerStats": lambda c: c.runtime.ListContainerStats(cri_pb2.ListContainerStatsRequest()),
        "ListPodSandboxStats": lambda c: c.runtime.ListPodSandboxStats(cri_pb2.ListPodSandboxStatsRequest()),
        "ListPodSandboxMetrics": lambda c: c.runtime.ListPodSandboxMetrics(
            cri_pb2.ListPodSandboxMetricsRequest()
        ),
    }
    samples: dict[str, Samples] = defaultdict(lambda: defaultdict(list))
    pods = {side.name: run.pods(run.counts.watched) for side in run.sides}
    for side in run.sides:
        eight(partial(work.start, run.clients[side.name]), pods[side.name])
    for name, call in calls.items():
        for turn in run.turns(run.counts.readings):
            began = perf_counter()
            for side in turn:
                client, asked = run.clients[side.name], perf_counter()
                call(client)
                samples[name][side.name].append((perf_counter() - asked) * 1000)
            time.sleep(max(_APART - (perf_counter() - began), 0))
    for side in run.sides:
        eight(partial(work.end, run.clients[side.name]), pods[side.name])
    aims = {"ListContainerStats": 0.25, "ListPodSandboxMetrics": 0.25}
    return [
        Row(name=f"{name} over {run.counts.watched} pods", unit="ms", values=values, most=aims.get(name))
        for name, values in samples.items()
    ]


def node(run: Run) -> list[Row]:
    """The daemon's processor time under what kubelet asks of a full node, and how soon events arrive."""
    shares: Samples = {}
    lags: Samples = {}
    count = run.counts.node
    for side in run.sides:
        client = run.clients[side.name]
        pods = run.pods(count)
        eight(partial(work.start, client), pods)
        ends = min(run.counts.ends, count)
        lags[side.name] = subscriber.watch(side, ends, partial(_watched, run, side, pods, shares))
        eight(partial(work.end, client), pods)
    return [
        Row(
            name=f"processor time of the daemon, {count} pods polled as by kubelet",
            unit="% of one",
            values=shares,
            limit=3,
        ),
        Row(
            name=f"the end of a container to its subscriber, {count} pods (p99)",
            unit="ms",
            values=lags,
            limit=20,
            quantile=0.99,
        ),
        Row(name="· the same (median)", unit="ms", values=lags),
    ]


def _watched(run: Run, side: Side, pods: Sequence[Pod], shares: Samples) -> None:
    """Poll as kubelet does, beside an open stream of events, and then end some containers one by one."""
    client = run.clients[side.name]
    time.sleep(2)  # what the starts left to do
    used, began = memory.processor_time(side.pid), perf_counter()
    _poll(client, pods, seconds=run.counts.seconds)
    elapsed = (perf_counter() - began) * 1000
    shares[side.name] = [(memory.processor_time(side.pid) - used) / elapsed * 100]
    for pod in pods[: run.counts.ends]:
        request = cri_pb2.StopContainerRequest(container_id=pod.container, timeout=0)
        client.runtime.StopContainer(request)


def _poll(client: Client, pods: Sequence[Pod], *, seconds: float) -> None:
    """Four lists each ten seconds, and in between the status of each pod once a minute."""
    runtime = client.runtime
    began = perf_counter()
    pause = _STATUS_PERIOD / len(pods)
    lists = statuses = 0
    while (now := perf_counter() - began) < seconds:
        if now >= lists * _PERIOD:
            lists += 1
            runtime.ListPodSandbox(cri_pb2.ListPodSandboxRequest())
            runtime.ListContainers(cri_pb2.ListContainersRequest())
            runtime.ListContainerStats(cri_pb2.ListContainerStatsRequest())
            runtime.ListPodSandboxStats(cri_pb2.ListPodSandboxStatsRequest())
        pod = pods[statuses % len(pods)]
        runtime.PodSandboxStatus(cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod.sandbox))
        statuses += 1
        time.sleep(max(min(statuses * pause, seconds) - (perf_counter() - began), 0))
