"""The measures, by the groups that can be chosen. Each interleaves the sides and gives rows of the table."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from api.client import Client
from benchmarks import handlers, kubelet, lister, memory, pulling, streaming, watching, work
from benchmarks.floor import Floor
from benchmarks.images import SMALL_FILES, WORKLOAD, Served
from benchmarks.report import Row
from benchmarks.run import Counts, Run, Samples, eight
from benchmarks.sides import Side
from benchmarks.work import Pod, Stopwatch

# A signal that comes before the workload expects it is lost, as always with the first process of a namespace.
_SOON = 1  # second


def cycle(run: Run) -> list[Row]:
    """One pod with one container at a time: start, exec, end; the floor in the same rounds."""
    samples: dict[str, Samples] = defaultdict(lambda: defaultdict(list))

    def keep(side: str, watch: Stopwatch) -> None:
        for stage, taken in watch.taken.items():
            samples[stage][side].append(taken)
        for name, stages in (("whole start", work.START), ("whole end", work.END)):
            values = [watch.taken[stage] for stage in stages if stage in watch.taken]
            if values:
                samples[name][side].append(sum(values))

    with ExitStack() as stack:
        client = run.clients["crispd"]
        (pattern,) = run.pods(1)
        work.start(client, pattern)
        stack.callback(work.end, client, pattern)
        bundle = run.crispd.bundles / pattern.container
        floor = Floor(run.logs.parent / "floor", bundle=bundle, top=run.top)
        for turn in run.turns(run.counts.cycles):
            for side in turn:
                client = run.clients[side.name]
                (pod,) = run.pods(1)
                watch, execs = work.life(client, pod, execs=run.counts.execs)
                samples["exec"][side.name] += execs
                keep(side.name, watch)
            watch = Stopwatch()
            with floor.cycle(watch):
                for _ in range(run.counts.execs):
                    each = Stopwatch()
                    floor.execute(each)
                    samples["exec"]["floor"].append(each.taken["exec"])
            keep("floor", watch)
    return [
        Row(name="run pod, create, start", unit="ms", values=samples["whole start"], most=0.65),
        *(Row(name=f"· {stage}", unit="ms", values=samples[stage]) for stage in work.START),
        Row(name="ExecSync true", unit="ms", values=samples["exec"], most=0.8),
        Row(name="stop, remove, stop pod, remove pod", unit="ms", values=samples["whole end"], most=0.75),
        *(Row(name=f"· {stage}", unit="ms", values=samples[stage]) for stage in work.END),
    ]


def burst(run: Run) -> list[Row]:
    """Many pods eight at a time, and while they are all up what each costs in memory."""
    starts: Samples = defaultdict(list)
    ends: Samples = defaultdict(list)
    weights: Samples = defaultdict(list)
    times: Samples = defaultdict(list)
    for turn in run.turns(run.counts.bursts):
        for side in turn:
            client = run.clients[side.name]
            pods = run.pods(run.counts.burst)
            before = sum(memory.proportional(side).values())
            used = memory.processor_time(side.pid)
            starts[side.name].append(len(pods) / eight(partial(work.start, client), pods))
            by_program = memory.proportional(side)
            weights[side.name].append((sum(by_program.values()) - before) / len(pods))
            run.say(f"{side.name}, {len(pods)} pods, PSS by program (MiB): {_rounded(by_program)}")
            ends[side.name].append(len(pods) / eight(partial(work.end, client), pods))
            times[side.name].append((memory.processor_time(side.pid) - used) / len(pods))
    count = run.counts.burst
    return [
        Row(name=f"{count} pods started, eight at a time", unit="pods/s", values=starts, least=1.3),
        Row(name=f"{count} pods ended, eight at a time", unit="pods/s", values=ends),
        Row(name="processor time of the daemon alone, a pod's whole life", unit="ms", values=times),
        Row(name="memory per pod (PSS, without the workload)", unit="MiB", values=weights, most=0.15),
    ]


def flat(run: Run) -> list[Row]:
    """The daemon's memory idle, and after many pods came and went."""
    idle: Samples = {side.name: [memory.resident(side.pid)] for side in run.sides}
    later: Samples = defaultdict(list)
    for side in run.sides:
        client = run.clients[side.name]
        seen = []
        for _ in range(5):
            pods = run.pods(max(run.counts.flat // 5, 1))
            eight(partial(_come_and_go, client), pods)
            seen.append(memory.resident(side.pid))
        run.say(
            f"{side.name}: resident after each fifth of {run.counts.flat} pods: {[round(v) for v in seen]}"
        )
        later[side.name].append(seen[-1])
    count = run.counts.flat
    return [
        Row(name="daemon resident, idle", unit="MiB", values=idle, limit=80),
        Row(name=f"daemon resident after {count} pods", unit="MiB", values=later, limit=80),
    ]


def lists(run: Run) -> list[Row]:
    """Lists over many pods, and the loop's lag, while a pull and four starts go on."""
    samples: dict[str, Samples] = defaultdict(dict)
    for side in run.sides:
        client = run.clients[side.name]
        pods = run.pods(run.counts.listed)
        eight(partial(work.start, client), pods)
        quiet = lister.listen(side, partial(time.sleep, 2))
        busy = lister.listen(side, partial(_load, run, client))
        for method, values in busy.items():
            samples[f"{method}, busy"][side.name] = values
            samples[f"{method}, quiet"][side.name] = quiet[method]
        eight(partial(work.end, client), pods)
    count = run.counts.listed
    rows = []
    for method in ("ListPodSandbox", "ListContainers"):
        name = f"{method} over {count} pods"
        busy, quiet = samples[f"{method}, busy"], samples[f"{method}, quiet"]
        rows += [
            Row(
                name=f"{name}, p99 in a pull and four starts", unit="ms", values=busy, limit=20, quantile=0.99
            ),
            Row(name=f"{name}, median, quiet", unit="ms", values=quiet),
        ]
    for label, part in (("p50", 0.5), ("p99", 0.99), ("most", 1.0)):
        name = f"lag of the event loop in a pull and four starts (Version, {label})"
        rows.append(Row(name=name, unit="ms", values=samples["Version, busy"], quantile=part))
    return rows


def _load(run: Run, client: Client) -> None:
    """Pulls, each with four pods that start at the same time; they end outside the samples' time."""
    for _ in range(run.counts.loads):
        pods = run.pods(4)
        with ThreadPoolExecutor(5) as pool:
            begun: list[Future[Any]] = [pool.submit(work.pull, client, SMALL_FILES)]
            begun += [pool.submit(work.start, client, pod) for pod in pods]
            for each in begun:
                each.result()
        for pod in pods:
            work.end(client, pod, grace=_SOON)
        work.forget(client, SMALL_FILES)


def _come_and_go(client: Client, pod: Pod) -> None:
    work.start(client, pod)
    work.end(client, pod, grace=_SOON)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in values.items()}


GROUPS: dict[str, Callable[[Run], list[Row]]] = {
    "cycle": cycle,
    "burst": burst,
    "images": pulling.images,
    "lists": lists,
    "stats": watching.stats,
    "node": watching.node,
    "kubelet": kubelet.measure,
    "streaming": streaming.streaming,
    "handlers": handlers.measure,
    "flat": flat,
}


def measure(
    sides: Sequence[Side], groups: Sequence[str], counts: Counts, *, top: str, directory: Path,
    served: Served, say: Callable[[str], None],
) -> list[Row]:  # fmt: skip
    """Every row of the chosen groups, after one pod on each side that is not counted."""
    with ExitStack() as stack:
        clients = {side.name: stack.enter_context(side.client()) for side in sides}
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory, prefix="logs.")), "pods")
        run = Run(
            sides=sides, clients=clients, top=top, logs=logs, counts=counts, say=say,
            served=served, directory=directory,
        )  # fmt: skip
        for side in sides:
            work.pull(clients[side.name], WORKLOAD)
            (pod,) = run.pods(1)
            work.start(clients[side.name], pod)
            work.execute(clients[side.name], pod, Stopwatch())
            work.end(clients[side.name], pod)
        rows = []
        # Memory at rest is measured before anything else has been asked of the daemons.
        for name in sorted(groups, key=lambda name: (name != "flat", list(GROUPS).index(name))):
            began = perf_counter()
            rows += GROUPS[name](run)
            say(f"{name}: {perf_counter() - began:.0f} s")
        return rows
