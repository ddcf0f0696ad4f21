"""Pods of kubelet's do not notice what happens to crispd, and kubelet's own restart harms none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import leaks, machine
from tests.daemon import CALL_LIMIT, Daemon, running
from tests.images.registry import Registry
from tests.kubelet import kubelet
from tests.kubelet.kubelet import POD_LIMIT, Kubelet
from tests.kubelet.manifests import IDLE, pod, sh


@pytest.fixture
def names(pytestconfig: pytest.Config) -> list[str]:
    return [f"steady{n}" for n in range(pytestconfig.getoption("kubelet_pods"))]


@pytest.fixture
def own_daemon(prepared_machine: None, image_registry: Registry) -> Iterator[Daemon]:
    with running(image_registry, environment={}) as daemon:
        yield daemon


@pytest.fixture
def leak_scope() -> leaks.Scope:
    return leaks.Scope()


@pytest.fixture
def pods(own_daemon: Daemon, names: list[str]) -> Iterator[Kubelet]:
    """Pods with probes that would restart them at the first failure."""
    probe = {
        "exec": {"command": ["true"]},
        "periodSeconds": 1,
        "timeoutSeconds": int(10 * machine.PATIENCE),
        "failureThreshold": 3,
    }
    with kubelet.running(own_daemon.endpoint, systemd=own_daemon.systemd_cgroups()) as own:
        for name in names:
            own.apply(pod(name, sh("main", IDLE, livenessProbe=probe)))
        own.until_ready(*names, limit=POD_LIMIT + 5 * len(names))
        yield own


def seen(own: Kubelet, names: list[str]) -> dict[str, Any]:
    """What must not change: address, container and restarts of each pod."""
    found = {}
    for name in names:
        status, main = own.status(name), own.container(name, "main")
        found[name] = (status["podIP"], main["containerID"], main["restartCount"])
    return found


def test_a_restart_and_a_kill_of_the_daemon_restart_no_pod(
    own_daemon: Daemon, pods: Kubelet, names: list[str]
) -> None:
    before = seen(pods, names)
    own_daemon.restart()
    pods.until_ready(*names)
    assert seen(pods, names) == before
    for _ in range(3):
        own_daemon.kill()
        own_daemon.start()

    def answers() -> bool:
        try:
            return pods.run(names[0], "main", "hostname").startswith(names[0])
        except RuntimeError as error:  # kubelet waits a few seconds before it connects again
            if "code = Unavailable" not in str(error):
                raise
            return False

    pods.until(answers, "kubelet speaks with the daemon again")
    pods.until_ready(*names)
    assert seen(pods, names) == before
    # A probe that nobody answers is unknown to kubelet; one that failed would be its pod's.
    for word in ("Probe failed", "Killing container"):
        assert word not in pods.log


def test_a_restart_of_kubelet_restarts_no_pod(pods: Kubelet, names: list[str]) -> None:
    before = seen(pods, names)
    pods.stop()
    pods.start()
    pods.until_ready(*names)
    assert seen(pods, names) == before


def test_a_pod_of_the_other_realm_is_let_alone(own_daemon: Daemon, pods: Kubelet) -> None:
    from api.proto import cri_pb2

    runtime = own_daemon.runtime(own_daemon.run_socket)
    config = cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name="mine", namespace="default", uid="mine")
    )
    mine = runtime.RunPodSandbox(
        cri_pb2.RunPodSandboxRequest(config=config), timeout=CALL_LIMIT
    ).pod_sandbox_id
    # Longer than kubelet waits before it ends what it does not know.
    pods.apply(pod("later", sh("main", IDLE)))
    pods.until_ready("later")
    pods.withdraw("later")
    pods.until(lambda: not pods.runs("later"), "kubelet has ended what it was told to")
    status = runtime.PodSandboxStatus(
        cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=mine), timeout=CALL_LIMIT
    )
    assert status.status.state == cri_pb2.SANDBOX_READY
    assert "mine" not in pods.pods()
