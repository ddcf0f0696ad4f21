"""The node as the control plane sees it: ready when there is a network, not ready when there is no runtime,
and why; short of disk, with the pod evicted that filled it.
"""

from __future__ import annotations

import os
import signal
import time
from itertools import count
from pathlib import Path

from tests import machine
from tests.kubelet.cluster.conftest import DISK, PRESSURE, SPARE, Cluster, network, network_file
from tests.kubelet.disk import free
from tests.kubelet.inside import images, pid_of
from tests.kubelet.manifests import IDLE, pod, sh

SOON = 15.0 * machine.PATIENCE  # seconds: kubelet asks the runtime every five
NOTICED = 90.0 * machine.PATIENCE  # seconds: kubelet bears 30 s without an answer


def test_the_node_is_ready_within_seconds_of_its_network(cluster: Cluster) -> None:
    file = network_file(cluster.daemon)
    file.unlink()
    cluster.kubelet.until(lambda: cluster.ready()[0] == "False", "the node is not ready")
    assert "cni" in cluster.ready()[1].lower()
    waiting = pod("waiting", sh("main", IDLE))
    cluster.create(waiting)
    cluster.kubelet.until(
        lambda: "NetworkNotReady" in cluster.plane.kubectl("describe", "pod", "waiting"), "the pod waits"
    )
    began = time.monotonic()
    file.write_text(network(cluster.daemon))
    cluster.kubelet.until(lambda: cluster.ready()[0] == "True", "the node is ready", SOON)
    print(f"ready {time.monotonic() - began:.1f} s after the network's file was written")
    cluster.kubelet.until_ready("waiting")


def test_while_the_runtime_is_away_the_node_says_so_and_pods_live_and_all_is_caught_up(
    cluster: Cluster,
) -> None:
    cluster.run(pod("steady", sh("main", IDLE)), pod("ends", sh("main", "exec sleep 1000000")))
    before = {name: cluster.container(name, "main") for name in ("steady", "ends")}
    steady, ends = (pid_of(cluster.daemon, before[name]["containerID"]) for name in ("steady", "ends"))
    started = Path(f"/proc/{steady}/stat").read_text().split()[21]
    assert cluster.daemon.stop() == 0
    os.kill(ends, signal.SIGKILL)
    cluster.kubelet.until(lambda: cluster.ready()[0] == "False", "the node is not ready", NOTICED)
    assert "container runtime" in cluster.ready()[1]
    assert Path(f"/proc/{steady}/stat").read_text().split()[21] == started
    cluster.daemon.start()
    cluster.kubelet.until(lambda: cluster.ready()[0] == "True", "the node is ready", SOON)
    cluster.kubelet.until(
        lambda: cluster.container("ends", "main").get("restartCount") == 1, "what ended is started again"
    )
    end = cluster.container("ends", "main")["lastState"]["terminated"]
    assert (end["reason"], end["exitCode"]) == ("Error", 137)
    cluster.kubelet.until_ready("steady", "ends")
    after = cluster.container("steady", "main")
    assert (after["containerID"], after["restartCount"]) == (before["steady"]["containerID"], 0)


def test_a_full_disk_costs_unused_images_and_then_the_pod_that_filled_it(
    cluster: Cluster, disk: Path
) -> None:
    assert SPARE in images(cluster.daemon)
    cluster.run(pod("modest", sh("main", IDLE)))
    fills = f"head -c {free(disk) - PRESSURE // 2} /dev/zero >/filled; {IDLE}"
    cluster.create(pod("greedy", sh("main", fills)))
    cluster.kubelet.until(
        lambda: "ephemeral-storage" in eviction(cluster, "greedy"), "the greedy pod is evicted", NOTICED
    )
    cluster.kubelet.until(lambda: SPARE not in images(cluster.daemon), "the image that nobody uses is gone")
    cluster.kubelet.until(lambda: free(disk) > DISK // 2, "its room is free again")
    cluster.kubelet.until_ready("modest")
    assert cluster.container("modest", "main")["restartCount"] == 0
    late = (f"late-{number}" for number in count())
    cluster.kubelet.until(lambda: admitted(cluster, next(late)), "pods are taken again", NOTICED)


def admitted(cluster: Cluster, name: str) -> bool:
    """Whether kubelet runs a new pod: one that comes while the disk is short is turned away at once."""
    cluster.create(pod(name, sh("main", IDLE)))
    phases = []
    while not phases or phases[-1] == "Pending":
        time.sleep(0.2)
        phases.append(cluster.plane.get("pod", name)["status"].get("phase", "Pending"))
    return bool(phases[-1] == "Running")


def eviction(cluster: Cluster, pod: str) -> str:
    """Why kubelet ended the pod, as the API has it; "" if it did not."""
    conditions = cluster.plane.get("pod", pod)["status"].get("conditions", [])
    ended = [one for one in conditions if one["type"] == "DisruptionTarget" and one["status"] == "True"]
    return str(ended[0]["message"]) if ended and ended[0]["reason"] == "TerminationByKubelet" else ""
