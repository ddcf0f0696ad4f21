"""What kubelet does over a long time: rotated logs, probes that hang, events beside its looks, images
that are collected.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks
from tests.daemon import Daemon, running
from tests.images import catalogue
from tests.images.registry import Registry
from tests.kubelet import kubelet
from tests.kubelet.inside import images, pull
from tests.kubelet.kubelet import NODE
from tests.kubelet.manifests import IDLE, pod, sh

LINES = 20000


@pytest.fixture
def own_daemon(prepared_machine: None, image_registry: Registry) -> Iterator[Daemon]:
    with running(image_registry, environment={}) as daemon:
        yield daemon


@pytest.fixture
def leak_scope() -> leaks.Scope:
    return leaks.Scope()


def test_a_log_that_kubelet_rotates_while_it_grows_loses_no_line(own_daemon: Daemon) -> None:
    settings = {
        "containerLogMaxSize": "200Ki",
        "containerLogMaxFiles": 50,
        "containerLogMonitorInterval": "3s",
    }
    script = f"""
        n=0
        while [ $n -lt {LINES} ]; do
            n=$((n+1)); echo line $n
            [ $((n % 200)) != 0 ] || sleep 0.1
        done
        {IDLE}
    """
    with kubelet.running(own_daemon.endpoint, systemd=own_daemon.systemd_cgroups(), settings=settings) as own:
        own.apply(pod("talks", sh("main", script)))
        own.until_ready("talks")
        (directory,) = (own.directory / "pod-logs").glob(f"default_talks-{NODE}_*/main")

        def files() -> list[Path]:
            return sorted(directory.iterdir(), key=lambda path: (path.name == "0.log", path.name))

        def numbers() -> list[int]:
            texts = [_text(path) for path in files()]
            return [int(number) for text in texts for number in re.findall(r" F line (\d+)\n", text)]

        own.until(lambda: f"line {LINES}\n" in _text(directory / "0.log"), "the last line is written")
        own.until(lambda: len(files()) > 2, "the log was rotated")
        # Until kubelet has renamed and compressed what it is at, a line is nowhere or twice.
        own.until(lambda: numbers() == list(range(1, LINES + 1)), "every line is there, once and in order")


def _text(path: Path) -> str:
    """A log's text; kubelet compresses all rotated ones but the latest. "" while it renames it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


@pytest.mark.timeout(1800)  # a thousand take their time
def test_probes_that_never_answer_leave_no_process_behind(
    own_daemon: Daemon, pytestconfig: pytest.Config
) -> None:
    """A readiness probe may fail for ever: the pod is not ready, and nothing else comes of it."""
    wanted = pytestconfig.getoption("hanging_probes")
    names = [f"hangs{number}" for number in range(min(max(wanted // 50, 1), 20))]
    probe = {
        "exec": {"command": ["sh", "-c", "sleep 1000 & sleep 1000"]},
        "periodSeconds": 1,
        "timeoutSeconds": 1,
    }
    with kubelet.running(own_daemon.endpoint, systemd=own_daemon.systemd_cgroups()) as own:
        for name in names:
            own.apply(pod(name, sh("main", IDLE, readinessProbe=probe)))
        own.until(
            lambda: all("running" in own.container(name, "main").get("state", {}) for name in names),
            "the containers run",
        )

        def tries() -> int:
            return len(re.findall(r"ExecSync code=DEADLINE_EXCEEDED|method=ExecSync code=", own_daemon.log))

        own.until(lambda: tries() >= len(names), "the first probes have hung")
        before = len(list(leaks.processes((own_daemon.directory,))))
        own.until(lambda: tries() >= wanted, f"{wanted} probes have hung", 60 + 10 * wanted / len(names))
        after = len(list(leaks.processes((own_daemon.directory,))))
        print(f"{tries()} probes have hung; {before} processes after the first ones, {after} in the end")
        # One of each pod may be at work, with a shell and two sleeps, and what starts and ends it.
        assert after <= before + 8 * len(names)
        for name in names:
            sleeping = own.run(name, "main", "ps", "-o", "args").count("sleep 1000")
            assert sleeping <= 4, (name, sleeping)
            assert own.container(name, "main")["ready"] is False


def test_with_its_gate_kubelet_takes_events_too(own_daemon: Daemon) -> None:
    gates = {"featureGates": {"EventedPLEG": True}}
    with kubelet.running(own_daemon.endpoint, systemd=own_daemon.systemd_cgroups(), settings=gates) as own:
        ends = sh("main", "sleep 1; exit 7")
        own.apply(pod("told", ends, sh("other", IDLE), restartPolicy="Never"))
        own.until(lambda: "terminated" in own.container("told", "main").get("state", {}), "main has ended")
        assert own.container("told", "main")["state"]["terminated"]["exitCode"] == 7
        own.until(lambda: "running" in own.container("told", "other").get("state", {}), "other runs")
        assert "GetContainerEvents" in own_daemon.log


@pytest.mark.timeout(900)  # kubelet looks every five minutes
def test_the_collection_of_images_takes_what_nobody_uses(
    own_daemon: Daemon, pytestconfig: pytest.Config
) -> None:
    if not pytestconfig.getoption("image_collection"):
        pytest.skip("kubelet collects images every five minutes: with --image-collection")
    settings = {"imageMinimumGCAge": "1s", "imageMaximumGCAge": "2s"}
    pull(own_daemon, catalogue.NGINX)
    with kubelet.running(own_daemon.endpoint, systemd=own_daemon.systemd_cgroups(), settings=settings) as own:
        own.apply(pod("uses", sh("main", IDLE)))
        own.until_ready("uses")
        assert images(own_daemon) >= {catalogue.NGINX, catalogue.BUSYBOX}
        own.until(lambda: catalogue.NGINX not in images(own_daemon), "the unused image is gone", 660)
        assert catalogue.BUSYBOX in images(own_daemon)
        main = own.container("uses", "main")
        assert (main["restartCount"], "running" in main["state"]) == (0, True)
