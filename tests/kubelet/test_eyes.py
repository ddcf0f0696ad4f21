"""kubelet's own metrics name Crisp's pods: with its cAdvisor answered as CRI-O would answer it."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import figures, leaks
from tests.daemon import running
from tests.images import catalogue
from tests.images.registry import Registry
from tests.kubelet import dashboards, kubelet
from tests.kubelet.dashboards import Series, select
from tests.kubelet.kubelet import NODE, Kubelet
from tests.kubelet.manifests import IDLE, pod, sh

SOCKET = Path("/var/run/crio/crio.sock")
"""Where cAdvisor asks; it cannot be told another place."""


@pytest.fixture
def watched(prepared_machine: None, image_registry: Registry) -> Iterator[Kubelet]:
    made = not SOCKET.parent.exists()
    with (
        running(
            image_registry, environment={}, overrides={"kubelet": {"cadvisor_socket": str(SOCKET)}}
        ) as daemon,
        kubelet.running(daemon.endpoint, systemd=daemon.systemd_cgroups()) as own,
    ):
        yield own
    if made:
        SOCKET.parent.rmdir()


@pytest.fixture
def measured(prepared_machine: None, image_registry: Registry) -> Iterator[Kubelet]:
    """A kubelet that takes usage and metrics from CRI alone."""
    gates = {"featureGates": {"PodAndContainerStatsFromCRI": True}}
    with (
        running(image_registry, environment={}) as daemon,
        kubelet.running(daemon.endpoint, systemd=daemon.systemd_cgroups(), settings=gates) as own,
    ):
        yield own


@pytest.fixture
def on_a_disk() -> Iterator[Path]:
    """A directory on a disk that has a name: /tmp may be in memory, and cAdvisor names no loop device."""
    with tempfile.TemporaryDirectory(prefix="crisp-eyes.", dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture
def leak_scope() -> leaks.Scope:
    return leaks.Scope()


def series_of(own: Kubelet, name: str) -> list[Series]:
    every = dashboards.series(own.get("/metrics/cadvisor").decode())
    return [one for one in every if one.labels.get("pod") == f"{name}-{NODE}"]


def test_series_have_the_names_of_pod_container_and_image_and_the_pods_network(watched: Kubelet) -> None:
    work = "while :; do head -c 100000 /dev/zero | md5sum >/dev/null; sleep 0.05; done"
    watched.apply(pod("seen", sh("main", work), sh("side", IDLE)))
    watched.until_ready("seen")

    usage = ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
    wanted = [f'{name}{{container="{container}"}}' for name in usage for container in ("main", "side")]
    wanted.append('container_network_receive_bytes_total{interface="eth0"}')

    def found() -> list[list[Series]]:
        of_the_pod = series_of(watched, "seen")
        return [select(selector, of_the_pod) for selector in wanted]

    # cAdvisor looks at each new cgroup when the kernel tells it, and then every ten seconds or so.
    watched.until(lambda: all(found()), "each container has processor time and memory, the pod its network")
    seen = found()
    assert [len(one) for one in seen] == [1] * len(wanted)
    *of_containers, (of_pod,) = seen
    names = {(one.labels["namespace"], one.labels["image"]) for (one,) in of_containers}
    assert names == {("default", catalogue.BUSYBOX)}
    assert of_pod.labels["namespace"] == "default"


def test_the_summary_has_processor_memory_network_and_file_system(watched: Kubelet) -> None:
    watched.apply(pod("summed", sh("main", f"head -c 3000000 /dev/zero >/file; {IDLE}")))
    watched.until_ready("summed")

    def entry() -> dict[str, object]:
        pods = json.loads(watched.get("/stats/summary"))["pods"]
        return next((one for one in pods if one["podRef"]["name"] == f"summed-{NODE}"), {})

    # kubelet finds the sandbox in cAdvisor by the id at the end of its cgroup's name, and strips `crio-` only
    # off scopes: with cgroupfs the network comes with the gate PodAndContainerStatsFromCRI alone.
    network = watched.systemd
    watched.until(
        lambda: "usageNanoCores" in str(entry().get("containers")) and ("network" in entry() or not network),
        "the summary has the pod's processor time and network",
    )
    told = json.dumps(entry())
    for word in ("workingSetBytes", "rootfs", "logs", *(["rxBytes"] if network else [])):
        assert word in told, f"{word} in {told}"
    if not network:
        figures.count("left out", "the pod's network in kubelet's summary (cgroup driver cgroupfs)", 1)


def test_with_usage_from_cri_alone_the_summary_has_it_all(measured: Kubelet) -> None:
    measured.apply(pod("told", sh("main", IDLE)))
    measured.until_ready("told")

    def words() -> str:
        pods = json.loads(measured.get("/stats/summary"))["pods"]
        return json.dumps([one for one in pods if one["podRef"]["name"] == f"told-{NODE}"])

    measured.until(
        lambda: all(word in words() for word in ("usageNanoCores", "workingSetBytes", "rxBytes")),
        "the summary has processor time, memory and network",
    )
    measured.until(lambda: series_of(measured, "told") != [], "the runtime's metrics are kubelet's")
    every = series_of(measured, "told")
    keys = Counter((one.name, *sorted(one.labels.items())) for one in every)
    assert [key for key, count in keys.items() if count > 1] == []
    (of_container,) = select('container_memory_usage_bytes{container="main"}', every)
    assert of_container.labels["namespace"] == "default"


@pytest.mark.usefixtures("image_registry")  # made before the test looks at what there is
@pytest.mark.parametrize("source", ["watched", "measured"])
def test_no_panel_of_the_usual_dashboards_is_empty(
    source: str, on_a_disk: Path, request: pytest.FixtureRequest
) -> None:
    own: Kubelet = request.getfixturevalue(source)
    work = """
        while :; do
            dd if=/dev/zero of=/disk/$0 bs=65536 count=4 conv=fsync 2>/dev/null
            head -c 1000000 /dev/zero | md5sum >/dev/null; sleep 0.1
        done
    """
    limits = {"limits": {"cpu": "500m", "memory": "64Mi"}}
    mounts = [{"name": "disk", "mountPath": "/disk"}]
    works = [
        {**sh(name, work, args=[name], resources=limits), "volumeMounts": mounts} for name in ("main", "side")
    ]
    disk = {"name": "disk", "hostPath": {"path": str(on_a_disk)}}
    own.apply(pod("works", *works, volumes=[disk]))
    own.until_ready("works")

    panels = {**dashboards.OF_CONTAINERS, **(dashboards.OF_DISKS if counts_io() else {})}

    def empty() -> list[str]:
        found = series_of(own, "works")
        by_container = {
            panel: {one.labels["container"] for one in select(selector, found)}
            for panel, selector in panels.items()
        }
        return [
            *(panel for panel, names in by_container.items() if names != {"main", "side"}),
            *(panel for panel, selector in dashboards.OF_PODS.items() if not select(selector, found)),
        ]

    missing: list[str] = []

    def every_panel() -> bool:
        missing[:] = empty()
        return not missing

    try:
        own.until(every_panel, "every panel has a series of each container or of the pod")
    except TimeoutError:
        pytest.fail(f"nothing for: {', '.join(missing)}")

    # A rate needs two samples of one series.
    first = used(own, "works")
    own.until(
        lambda: all(used(own, "works").get(key, 0) > value for key, value in first.items()),
        "the same series have grown",
    )


def counts_io() -> bool:
    """Whether the kernel counts what a cgroup reads and writes.

    With version 1 and Linux 6.10 or later it does so from a disk's first limit on: block/blk-throttle.c,
    commit a3166c51702b, "delay initialization until configuration".
    """
    counted = Path("/sys/fs/cgroup/blkio/blkio.throttle.io_service_bytes_recursive")
    if not counted.exists() or counted.read_text() != "Total 0\n":
        return True
    reason = f"{counted} counts nothing"
    figures.count("left out", f"panels of disks ({reason})", len(dashboards.OF_DISKS))
    return False


def used(own: Kubelet, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """The processor time of a pod's containers, by the labels of its series."""
    found = select(dashboards.OF_CONTAINERS["processor time"], series_of(own, name))
    return {tuple(sorted(one.labels.items())): one.value for one in found}
