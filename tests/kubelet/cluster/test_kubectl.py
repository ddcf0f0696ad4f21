"""What people do with kubectl works against Crisp: exec, logs, attach, port-forward, cp, describe, debug."""

from __future__ import annotations

import re
import select
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests import machine
from tests.images import catalogue
from tests.kubelet.cluster.conftest import Cluster
from tests.kubelet.cluster.control_plane import Failed
from tests.kubelet.kubelet import NODE
from tests.kubelet.manifests import IDLE, pod, sh

LIMIT = 60.0 * machine.PATIENCE  # seconds that a command's first word is waited for


def test_exec_gives_output_input_and_the_commands_code(cluster: Cluster) -> None:
    cluster.run(pod("plain", sh("main", IDLE)))
    plane = cluster.plane
    assert plane.kubectl("exec", "plain", "--", "hostname") == "plain\n"
    assert plane.kubectl("exec", "-i", "plain", "--", "sort", given="b\na\n") == "a\nb\n"
    with pytest.raises(Failed, match="on the other side") as failure:
        plane.kubectl("exec", "plain", "--", "sh", "-c", "echo on the other side >&2; exit 7")
    assert failure.value.code == 7


def test_logs_of_now_and_of_before_and_an_attached_client_is_heard(cluster: Cluster) -> None:
    hears = 'echo started; while read line; do echo got $line; [ "$line" != bye ] || exit 3; done'
    cluster.run(pod("hears", {**sh("main", hears), "stdin": True}))
    plane = cluster.plane
    cluster.kubelet.until(lambda: plane.kubectl("logs", "hears") == "started\n", "it listens")
    # What it says is told as it comes; the end of the container is the end of the command.
    said = plane.kubectl("attach", "-i", "-q", "hears", given="hello\nbye\n")
    assert said.splitlines() == ["got hello", "got bye"]
    cluster.kubelet.until(
        lambda: cluster.container("hears", "main").get("restartCount") == 1, "the container is started again"
    )
    assert plane.kubectl("logs", "--previous", "hears") == "started\ngot hello\ngot bye\n"
    cluster.kubelet.until(lambda: plane.kubectl("logs", "hears") == "started\n", "the new one has a log")
    end = cluster.container("hears", "main")["lastState"]["terminated"]
    assert (end["reason"], end["exitCode"]) == ("Error", 3)


def test_files_are_copied_both_ways_and_stay_as_they_are(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run(pod("copied", sh("main", IDLE)))
    content = bytes(range(256)) * 4000
    (tmp_path / "there").write_bytes(content)
    cluster.plane.kubectl("cp", tmp_path / "there", "copied:/tmp/there")
    cluster.plane.kubectl("cp", "copied:/tmp/there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_a_forwarded_port_reaches_the_pod(cluster: Cluster) -> None:
    serve = f"mkdir /www; echo from the pod >/www/index.html; httpd -p 127.0.0.1:8080 -h /www; {IDLE}"
    page = ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"]
    listens = {"exec": {"command": page}, "periodSeconds": 1, "timeoutSeconds": 10}
    cluster.run(pod("served", {**sh("main", serve), "readinessProbe": listens}))
    with subprocess.Popen(
        cluster.plane.command("port-forward", "pod/served", ":8080"),
        env=cluster.plane.environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], LIMIT)
            assert ready, "port-forward said nothing"
            told = process.stdout.readline()
            match = re.search(r"127\.0\.0\.1:(\d+) -> 8080", told)
            assert match, told
            for _ in range(3):
                with urllib.request.urlopen(f"http://127.0.0.1:{match[1]}/", timeout=LIMIT) as page:
                    assert page.read() == b"from the pod\n"
        finally:
            process.terminate()


def test_describe_has_the_events_of_a_start_and_why_an_image_is_not_there(cluster: Cluster) -> None:
    absent = {**sh("main", IDLE), "image": "registry.k8s.io/crisp-tests/absent:1"}
    cluster.create(pod("good", sh("main", IDLE)), pod("bad", absent))
    cluster.kubelet.until_ready("good")
    reasons = ("Pulled", "Created", "Started")
    cluster.kubelet.until(
        lambda: all(word in cluster.plane.kubectl("describe", "pod", "good") for word in reasons),
        f"the events {reasons}",
    )
    described = cluster.plane.kubectl("describe", "pod", "good")
    (container,) = cluster.kubelet.status("good")["containerStatuses"]
    assert container["containerID"].startswith("crisp://")
    for word in (container["containerID"], container["imageID"], cluster.kubelet.status("good")["podIP"]):
        assert word in described
    cluster.kubelet.until(
        lambda: "not found" in cluster.plane.kubectl("describe", "pod", "bad"), "the image is told missing"
    )
    node = cluster.plane.kubectl("describe", "node", NODE)
    assert re.search(r"Container Runtime Version:\s+crisp://\d", node)


def test_a_debug_container_sees_the_processes_of_its_target(cluster: Cluster) -> None:
    cluster.run(pod("watched", sh("main", "exec sleep 123456")))
    cluster.plane.kubectl(
        "debug", "watched", f"--image={catalogue.BUSYBOX}", "--container=eyes", "--target=main",
        "--profile=general", "--", "ps", "-o", "args",
    )  # fmt: skip

    def ended() -> bool:
        found = cluster.kubelet.status("watched").get("ephemeralContainerStatuses", [])
        return any("terminated" in entry["state"] for entry in found)

    cluster.kubelet.until(ended, "the debug container has ended")
    assert "sleep 123456" in cluster.plane.kubectl("logs", "watched", "--container=eyes")
    assert cluster.container("watched", "main")["restartCount"] == 0


def test_logs_are_followed(cluster: Cluster) -> None:
    cluster.run(pod("counts", sh("main", "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.2; done")))
    with subprocess.Popen(
        cluster.plane.command("logs", "--follow", "counts"),
        env=cluster.plane.environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            deadline = time.monotonic() + LIMIT
            lines: list[str] = []
            while len(lines) < 20:
                ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
                assert ready, lines
                lines.append(process.stdout.readline().strip())
        finally:
            process.terminate()
    assert lines == [f"line {number}" for number in range(1, 21)]
