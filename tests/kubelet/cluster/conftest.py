"""A cluster of one node for the tests that ask for `cluster`; its objects go with a test, save classes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.proto import cri_pb2
from tests import leaks
from tests.daemon import Daemon, running, warm_up
from tests.images import catalogue
from tests.images.registry import Registry
from tests.kubelet import kubelet
from tests.kubelet.cluster import control_plane
from tests.kubelet.cluster.control_plane import ControlPlane
from tests.kubelet.disk import mounted
from tests.kubelet.inside import pull
from tests.kubelet.kubelet import NODE, Kubelet, Membership
from tests.machine import PATIENCE
from tests.parts.build import program

ADDRESS = "10.77.0.1"
DISK = 512 << 20  # bytes
PRESSURE = 128 << 20  # bytes; with less that is free kubelet evicts
SPARE = catalogue.NGINX
"""An image that nobody uses; kubelet deletes those that it knows since its start."""
LABELS = {f"handlers.crisp/has-{name}": "true" for name in ("crun", "runc-new", "gvisor")}


@dataclass(slots=True, kw_only=True)
class Cluster:
    """The node's daemon and kubelet, and the control plane that it is registered with."""

    daemon: Daemon
    plane: ControlPlane
    kubelet: Kubelet

    def run(self, *pods: dict[str, Any]) -> None:
        """Create pods on the node and wait until they are ready."""
        self.create(*pods)
        self.kubelet.until_ready(*(pod["metadata"]["name"] for pod in pods))

    def create(self, *pods: dict[str, Any]) -> None:
        placed = [{**pod, "spec": {**pod["spec"], "nodeName": NODE}} for pod in pods]
        self.plane.apply(*placed)

    def container(self, pod: str, name: str) -> dict[str, Any]:
        return self.kubelet.container(pod, name)

    def ready(self) -> tuple[str, str]:
        """The node's condition Ready, as the API has it: status and message."""
        node = self.plane.get("node", NODE)
        found = [entry for entry in node["status"]["conditions"] if entry["type"] == "Ready"]
        return (found[0]["status"], found[0]["message"]) if found else ("", "")


def network_file(daemon: Daemon) -> Path:
    return daemon.directory / "net.d" / "10-pods.conflist"


def network(daemon: Daemon) -> str:
    """A cluster's network, as its agent would write it: the node's own bridge is off."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": daemon.subnet}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(daemon.directory / "leases"),
    }
    # Without ipMasq: at DEL the plugin looks for the addresses in the namespace, from where gVisor has taken
    # them, and leaves its rules.
    bridge = {"type": "bridge", "bridge": daemon.bridge, "isGateway": True, "ipam": ipam}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, portmap]})


def has_network(daemon: Daemon) -> bool:
    status: Any = daemon.runtime().Status(cri_pb2.StatusRequest(), timeout=10 * PATIENCE).status
    return all(condition.status for condition in status.conditions)


@pytest.fixture(scope="package")
def disk(prepared_machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the images of the node and what its containers write is on."""
    with mounted(tmp_path_factory.mktemp("node"), DISK) as point:
        yield point


@pytest.fixture(scope="package")
def own_daemon(image_registry: Registry, disk: Path) -> Iterator[Daemon]:
    overrides: dict[str, dict[str, Any]] = {
        "": {"state_dir": str(disk / "state")},
        "network": {"builtin": False},
        "handlers.runc-new": {"binary": str(program("runc", "runc"))},
        "handlers.runsc-cli": {"binary": str(program("runsc", "runsc"))},
    }
    with running(image_registry, overrides=overrides, environment={}, shared=True) as daemon:
        network_file(daemon).write_text(network(daemon))
        deadline = time.monotonic() + 10 * PATIENCE
        while not has_network(daemon):
            assert time.monotonic() < deadline, "the daemon does not see its network's file"
            time.sleep(0.02)
        warm_up(daemon)
        pull(daemon, SPARE)
        yield daemon


@pytest.fixture(scope="package")
def shared_cluster(own_daemon: Daemon) -> Iterator[Cluster]:
    settings = {
        "nodeStatusUpdateFrequency": "1s",
        "imageMinimumGCAge": "1s",
        "evictionHard": {"imagefs.available": str(PRESSURE)},
        "evictionPressureTransitionPeriod": "1s",
    }
    with (
        control_plane.running(ADDRESS) as plane,
        kubelet.running(
            own_daemon.endpoint,
            systemd=own_daemon.systemd_cgroups(),
            settings=settings,
            membership=Membership(kubeconfig=plane.kubeconfig, address=ADDRESS, labels=LABELS),
        ) as own,
    ):
        made = Cluster(daemon=own_daemon, plane=plane, kubelet=own)
        own.until(lambda: _is_registered(made), "the node is registered and ready")
        yield made


def _is_registered(cluster: Cluster) -> bool:
    with contextlib.suppress(control_plane.Failed):
        return cluster.ready()[0] == "True"
    return False


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The shared cluster, without pods before and after the test."""
    yield shared_cluster
    shared_cluster.plane.kubectl("delete", "pods,configmaps", "--all", "--grace-period=1", "--timeout=60s")
    shared_cluster.kubelet.clear()
    shared_cluster.daemon.remove_all_pods()  # as kubelet would, a minute later
    assert shared_cluster.daemon.exceptions() == [], "crispd logged exceptions"


@pytest.fixture
def leak_scope(request: pytest.FixtureRequest) -> leaks.Scope:
    """The daemon's own directories too; its bridge comes with the first pod and stays."""
    shared: Cluster = request.getfixturevalue("shared_cluster")
    scope = shared.daemon.scope(descriptors=False)
    return leaks.Scope(
        directories=scope.directories,
        leases=(*scope.leases, shared.daemon.directory / "leases"),
        expected=(
            *scope.expected,
            f"link {shared.daemon.bridge}",
            f"cgroup */{shared.daemon.cgroup_prefix}*",
            "path */ns*",
            "process *-m api.daemon --config *",  # a test starts it again
            # gVisor keeps an empty network namespace there, which goes with the daemon and comes with a pod.
            "mount */run/handlers/runsc-cli/null-netns*",
            "path */run/handlers/runsc-cli/null-netns*",
        ),
    )
