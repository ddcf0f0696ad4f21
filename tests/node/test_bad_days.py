"""What only a machine of one's own can show: a clock that is wrong, a systemd that cannot be spoken to.

Runs in the virtual machine alone: `tests/node/run.sh tests/node/test_bad_days.py`.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from api.proto import cri_pb2
from tests import leaks
from tests.daemon import CALL_LIMIT, Daemon, running
from tests.images.registry import Registry
from tests.kubelet import kubelet
from tests.kubelet.kubelet import NODE, Kubelet
from tests.kubelet.manifests import IDLE, pod, sh

pytestmark = pytest.mark.skipif(
    "NODE_BOOT" not in os.environ, reason="only in the virtual machine: tests/node/run.sh tests/node"
)
BUS = ("dbus.socket", "dbus.service")


@pytest.fixture
def leak_scope() -> leaks.Scope:
    return leaks.Scope()


@contextmanager
def clock_without_battery() -> Iterator[None]:
    """The clock counts from 1970, as on a board that has none, and is right again after the block."""
    before = time.time() - time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, time.monotonic() + 1)  # the kernel takes nothing earlier
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, before + time.monotonic())


def created(daemon: Daemon, container_id: str) -> datetime:
    asked = cri_pb2.ContainerStatusRequest(container_id=container_id.rpartition("/")[2])
    told: Any = daemon.runtime().ContainerStatus(asked, timeout=CALL_LIMIT)
    return datetime.fromtimestamp(told.status.created_at / 1e9, UTC)


def test_pods_run_while_the_clock_says_1970_and_when_it_is_set_right(
    prepared_machine: None, image_registry: Registry
) -> None:
    with (
        clock_without_battery(),
        running(image_registry, environment={}) as daemon,
        kubelet.running(daemon.endpoint, systemd=True) as own,
    ):
        own.apply(pod("early", sh("main", f"echo here; {IDLE}")))
        own.until_ready("early")
        before = own.container("early", "main")["containerID"]
        assert created(daemon, before).year == 1970
        assert own.logs("early", "main") == "here\n"
        time.clock_settime(time.CLOCK_REALTIME, datetime(2026, 11, 26, tzinfo=UTC).timestamp())
        daemon.restart()
        own.apply(pod("now", sh("main", IDLE)))
        own.until_ready("early", "now")
        main = own.container("early", "main")
        assert (main["containerID"], main["restartCount"]) == (before, 0)
        assert created(daemon, own.container("now", "main")["containerID"]).year == 2026
        own.until(lambda: hostname(own, "early") == f"early-{NODE}", "commands run in it")


def hostname(own: Kubelet, name: str) -> str:
    """What the command says; "" while kubelet has not connected again."""
    try:
        return own.run(name, "main", "hostname").strip()
    except RuntimeError as error:
        if "code = Unavailable" not in str(error):
            raise
        return ""


@contextmanager
def without_bus() -> Iterator[None]:
    """systemd runs, but nobody can be spoken to through the bus."""
    subprocess.run(["systemctl", "stop", *BUS], check=True)
    try:
        yield
    finally:
        subprocess.run(["systemctl", "start", *BUS], check=True)


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_without_the_bus_pods_live_and_what_cannot_be_is_done_when_it_is_back(
    handler: str, prepared_machine: None, image_registry: Registry
) -> None:
    overrides = {"": {"default_handler": handler}}
    with (
        running(image_registry, environment={}, overrides=overrides) as daemon,
        kubelet.running(daemon.endpoint, systemd=True) as own,
    ):
        own.apply(pod("older", sh("main", IDLE)))
        own.apply(pod("leaves", sh("main", IDLE)))
        own.until_ready("older", "leaves")
        before = own.container("older", "main")["containerID"]
        with without_bus():
            assert own.run("older", "main", "hostname").strip() == f"older-{NODE}"
            daemon.restart()
            own.apply(pod("newer", sh("main", IDLE)))
            own.withdraw("leaves")
            own.until(lambda: not own.runs("leaves"), "a pod is ended all the same")
            own.until(lambda: hostname(own, "older") == f"older-{NODE}", "commands run in the other")
        own.until_ready("older", "newer")
        main = own.container("older", "main")
        assert (main["containerID"], main["restartCount"]) == (before, 0)
