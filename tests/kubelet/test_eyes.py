"""kubelet's own metrics name Crisp's pods: with its cAdvisor answered as CRI-O would answer it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks
from tests.daemon import running
from tests.images import catalogue
from tests.images.registry import Registry
from tests.kubelet import kubelet
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
def leak_scope() -> leaks.Scope:
    return leaks.Scope()


def series(text: str, name: str, **labels: str) -> list[dict[str, str]]:
    """The label sets of a metric's series that have all these labels."""
    found = []
    for line in text.splitlines():
        if line.startswith(f"{name}{{"):
            pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line.rpartition(" ")[0]))
            if all(pairs.get(key) == value for key, value in labels.items()):
                found.append(pairs)
    return found


def test_series_have_the_names_of_pod_container_and_image_and_the_pods_network(watched: Kubelet) -> None:
    work = "while :; do head -c 100000 /dev/zero | md5sum >/dev/null; sleep 0.05; done"
    watched.apply(pod("seen", sh("main", work), sh("side", IDLE)))
    watched.until_ready("seen")
    name, image = f"seen-{NODE}", catalogue.BUSYBOX

    usage = ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
    wanted = [(metric, {"container": container}) for metric in usage for container in ("main", "side")]
    wanted.append(("container_network_receive_bytes_total", {"interface": "eth0"}))

    def found() -> list[list[dict[str, str]]]:
        text = watched.get("/metrics/cadvisor").decode()
        return [series(text, metric, pod=name, **labels) for metric, labels in wanted]

    # cAdvisor looks at each new cgroup when the kernel tells it, and then every ten seconds or so.
    watched.until(lambda: all(found()), "each container has processor time and memory, the pod its network")
    seen = found()
    assert [len(one) for one in seen] == [1] * len(wanted)
    *of_containers, (of_pod,) = seen
    assert {(one["namespace"], one["image"]) for (one,) in of_containers} == {("default", image)}
    assert of_pod["namespace"] == "default"


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
        print("no pod network in the summary: the cgroup driver is cgroupfs")


def test_with_usage_from_cri_alone_the_summary_has_it_all(
    prepared_machine: None, image_registry: Registry
) -> None:
    gates = {"featureGates": {"PodAndContainerStatsFromCRI": True}}
    with (
        running(image_registry, environment={}) as daemon,
        kubelet.running(daemon.endpoint, systemd=daemon.systemd_cgroups(), settings=gates) as own,
    ):
        own.apply(pod("told", sh("main", IDLE)))
        own.until_ready("told")

        def words() -> str:
            pods = json.loads(own.get("/stats/summary"))["pods"]
            return json.dumps([one for one in pods if one["podRef"]["name"] == f"told-{NODE}"])

        own.until(
            lambda: all(word in words() for word in ("usageNanoCores", "workingSetBytes", "rxBytes")),
            "the summary has processor time, memory and network",
        )

        def lines() -> list[str]:
            text = own.get("/metrics/cadvisor").decode()
            return [line for line in text.splitlines() if f'pod="told-{NODE}"' in line]

        own.until(
            lambda: any(line.startswith("container_cpu_usage_seconds_total{") for line in lines()),
            "the runtime's metrics are kubelet's",
        )
        # Collectors that add pod, namespace and container themselves must not make two of any.
        labels = {line: re.findall(r'(\w+)="', line.rpartition(" ")[0]) for line in lines()}
        assert {line: names for line, names in labels.items() if len(set(names)) != len(names)} == {}
        assert len({line.rpartition(" ")[0] for line in labels}) == len(labels)
        (of_container,) = [
            line
            for line in labels
            if line.startswith("container_memory_usage_bytes{") and 'container="main"' in line
        ]
        assert 'namespace="default"' in of_container
