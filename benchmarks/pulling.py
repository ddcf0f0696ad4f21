"""Images from the registry to the first start and back: times, memory, disk, page cache.

Cold means that nothing is in the page cache: neither what the registry serves nor what the sides have kept.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter

from api.client import Client, connect
from api.proto import admin_pb2, cri_pb2
from benchmarks import memory, work
from benchmarks.images import APPLICATION, MANY_FILES, SHARING, SMALL_FILES
from benchmarks.report import Row
from benchmarks.run import Counts, Run, Samples
from benchmarks.sides import Crispd, Side
from benchmarks.work import Pod

_MIB = 1 << 20
_LOOK_EVERY = 0.05  # seconds
_SOON = 1  # second of grace
_READ_ALL = "cat /usr/lib/application*/*/* >/dev/null"
_READ_SOME = "cat /usr/lib/application0/d0/* /usr/lib/application1/d0/* >/dev/null"


def images(run: Run) -> list[Row]:
    """The rows of the images' table."""
    with ExitStack() as stack:
        unpacking = stack.enter_context(_unpacking(run))
        return [
            *_pulls(run, unpacking),
            *_removals(run),
            *_starts(run),
            *_caches(run),
            *_sharing(run),
            *_check(run),
        ]


@contextmanager
def _unpacking(run: Run) -> Iterator[Client | None]:
    """A client of another crispd, which keeps layers as directories; None where crispd is not measured."""
    if not any(isinstance(side, Crispd) for side in run.sides):
        yield None
        return
    side = Crispd(run.directory / "unpacking", group=run.top, images={"layer_form": "directory"})
    with side.running(run.served.registry), side.client() as client:
        yield client


def _pulls(run: Run, unpacking: Client | None) -> list[Row]:
    """Both large images, warm and cold, and the memory of whoever is pulling."""
    taken: dict[str, Samples] = defaultdict(lambda: defaultdict(list))
    most: Samples = defaultdict(list)
    for name, image, count in (
        ("150", SMALL_FILES, run.counts.pulls), ("570", APPLICATION, run.counts.large),
    ):  # fmt: skip
        for heat in ("warm", "cold"):
            for turn in run.turns(count):
                for side in turn:
                    with _weighed(side, most[side.name]):
                        seconds = _pull(run, run.clients[side.name], image, heat)
                    taken[f"{name} {heat}"][side.name].append(seconds)
                if unpacking is not None and image == APPLICATION:
                    taken[f"directory {heat}"]["crispd"].append(_pull(run, unpacking, image, heat))
            taken[f"directory {heat}"]["containerd"] = taken[f"570 {heat}"]["containerd"]
    rows = []
    for key, what, aim in (
        ("150", "150 MB of small files, pull to ready", 0.25),
        ("570", "570 MB application in three layers, pull to ready", 0.35),
        ("directory", "· the same, directory form", 0.7),
    ):
        for heat in ("warm", "cold"):
            values = taken[f"{key} {heat}"]
            rows.append(Row(name=f"{what}, {heat}", unit="s", values=values, most=aim, spread=True))
    name = "daemon and workers resident, the most during these pulls"
    rows.append(Row(name=name, unit="MiB", values={k: [max(v)] for k, v in most.items()}, limit=120))
    return rows


def _pull(run: Run, client: Client, image: str, heat: str) -> float:
    if heat == "cold":
        drop_caches(run.counts)
    seconds = work.pull(client, image)
    work.forget(client, image)
    return seconds


def _removals(run: Run) -> list[Row]:
    """RemoveImage of a hundred thousand files, until the call returns."""
    taken: Samples = defaultdict(list)
    for turn in run.turns(run.counts.large):
        for side in turn:
            client = run.clients[side.name]
            work.pull(client, MANY_FILES)
            began = perf_counter()
            work.forget(client, MANY_FILES)
            taken[side.name].append((perf_counter() - began) * 1000)
    return [Row(name="remove an image of 100,000 files", unit="ms", values=taken, most=0.05, spread=True)]


def _starts(run: Run) -> list[Row]:
    """The first container of an image after its pull, to the end of its first reads, from a cold cache."""
    taken: Samples = defaultdict(list)
    for turn in run.turns(run.counts.large):
        for side in turn:
            client = run.clients[side.name]
            work.pull(client, APPLICATION)
            (pod,) = run.pods(1)
            sandbox = cri_pb2.RunPodSandboxRequest(config=pod.config)
            pod.sandbox = client.runtime.RunPodSandbox(sandbox).pod_sandbox_id
            drop_caches(run.counts)
            began = perf_counter()
            _container(client, pod)
            _execute(client, pod, _READ_SOME)
            taken[side.name].append((perf_counter() - began) * 1000)
            work.end(client, pod, grace=_SOON)
            work.forget(client, APPLICATION)
    name = "first start after the pull with 80 files read, cold"
    return [Row(name=name, unit="ms", values=taken, most=1.0, spread=True)]


def _caches(run: Run) -> list[Row]:
    """What many containers of one image, which have read all of it, leave in the page cache."""
    grown: Samples = defaultdict(list)
    for side in run.sides:
        client = run.clients[side.name]
        work.pull(client, APPLICATION)
        pods = run.pods(run.counts.readers)
        drop_caches(run.counts)
        before = _cached()
        for pod in pods:
            sandbox = cri_pb2.RunPodSandboxRequest(config=pod.config)
            pod.sandbox = client.runtime.RunPodSandbox(sandbox).pod_sandbox_id
            _container(client, pod)
            _execute(client, pod, _READ_ALL)
        time.sleep(run.counts.settling)
        grown[side.name].append(_cached() - before)
        for pod in pods:
            work.end(client, pod, grace=_SOON)
        work.forget(client, APPLICATION)
    name = f"page cache of {run.counts.readers} containers of one image that have read it all"
    return [Row(name=name, unit="MiB", values=grown, most=1.0)]


def _sharing(run: Run) -> list[Row]:
    """Ten images of the same five layers: bytes over the wire and on the disk, by those of the layers."""
    fetched: Samples = defaultdict(list)
    stored: Samples = defaultdict(list)
    for side in run.sides:
        client = run.clients[side.name]
        wire, disk = _received(), _used(side.directory)
        for image in SHARING:
            work.pull(client, image)
        fetched[side.name].append((_received() - wire) / run.served.shared_compressed)
        stored[side.name].append((_used(side.directory) - disk) / run.served.shared)
        for image in SHARING:
            work.forget(client, image)
    unit = "x the layers"
    return [
        Row(name="10 images that share 5 layers: bytes fetched", unit=unit, values=fetched, limit=1.1),
        Row(name="10 images that share 5 layers: bytes stored", unit=unit, values=stored, limit=1.1),
    ]


def _check(run: Run) -> list[Row]:
    """The fsck of all the large images, a gigabyte: bytes by seconds, and by the processors that it uses."""
    rates: Samples = defaultdict(list)
    for side in run.sides:
        if not isinstance(side, Crispd):
            continue
        client = run.clients[side.name]
        large = (SMALL_FILES, APPLICATION, MANY_FILES, SHARING[0])
        for image in large:
            work.pull(client, image)
        with connect(side.admin_socket) as admin:
            for _ in range(run.counts.large):
                began = perf_counter()
                *_, last = admin.admin.Fsck(admin_pb2.FsckRequest())
                taken = perf_counter() - began
                assert last.done, last
                assert not last.findings, last
                rates[side.name].append(last.read / 1e6 / taken / min(4, os.cpu_count() or 1))
        for image in large:
            work.forget(client, image)
    name = "fsck of 1 GB of layers"
    return [Row(name=name, unit="MB/s a core", values=rates, minimum=700, spread=True)]


def _container(client: Client, pod: Pod) -> None:
    """Create and start the application in a pod that runs, without limits, which reading would feel."""
    config = work.container(pod)
    config.image.image = config.image.user_specified_image = APPLICATION
    config.linux.ClearField("resources")
    request = cri_pb2.CreateContainerRequest(
        pod_sandbox_id=pod.sandbox, config=config, sandbox_config=pod.config
    )
    pod.container = client.runtime.CreateContainer(request).container_id
    client.runtime.StartContainer(cri_pb2.StartContainerRequest(container_id=pod.container))


def _execute(client: Client, pod: Pod, script: str) -> None:
    request = cri_pb2.ExecSyncRequest(container_id=pod.container, cmd=["/bin/sh", "-c", script], timeout=60)
    answer = client.runtime.ExecSync(request)
    assert answer.exit_code == 0, answer


def drop_caches(counts: Counts) -> None:
    """Write what is dirty and forget what is clean, of the whole machine, unless that is not wanted."""
    if counts.cold:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")


def _cached() -> float:
    """MiB of the page cache."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Cached:")) / 1024


def _received() -> int:
    """Bytes over loopback, which nobody else has in here."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


def _used(directory: Path) -> int:
    """Bytes on disk below a directory, one file system."""
    done = subprocess.run(["du", "-sxB1", directory], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0])


@contextmanager
def _weighed(side: Side, into: list[float]) -> Iterator[None]:
    """The most that the side's processes have resident together meanwhile; shared pages count once."""
    over, seen = threading.Event(), [0.0]

    def look() -> None:
        while not over.wait(_LOOK_EVERY):
            seen.append(sum(memory.proportional(side).values()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        into.append(max(seen))
