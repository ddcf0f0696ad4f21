"""Looking at the node: images, events, status, what the shell completes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time

from api.proto import cri_pb2
from tests.component.cli.person import (
    IMAGE,
    background,
    command,
    crisp,
    ended,
    environment,
    said,
)
from tests.daemon import CALL_LIMIT, Daemon


def test_an_image_is_pulled_listed_and_removed(served: Daemon) -> None:
    pulled = crisp(served, "pull", IMAGE)
    assert pulled.returncode == 0
    id_ = pulled.stdout.strip()
    assert re.fullmatch("sha256:[0-9a-f]{64}", id_)
    hosts = f"{served.certs_dir}/docker.io/hosts.toml"
    assert f"crisp: {IMAGE}: from " in pulled.stderr
    assert hosts in pulled.stderr, "the line that names the mirror"
    assert IMAGE in said(served, "images")
    assert [image["id"] for image in json.loads(said(served, "images", "-o", "json"))] == [id_]
    assert hosts in said(served, "pull", "--explain", IMAGE)
    assert said(served, "rmi", IMAGE).startswith("removed ")
    assert json.loads(said(served, "images", "-o", "json")) == []
    assert ended(served, "rmi", IMAGE)[0] == 3


def test_kubelet_s_pods_are_seen_and_left_to_kubelet(stocked: Daemon) -> None:
    metadata = cri_pb2.PodSandboxMetadata(name="web", namespace="default", uid="u", attempt=0)
    config = cri_pb2.PodSandboxConfig(metadata=metadata)
    stocked.runtime().RunPodSandbox(cri_pb2.RunPodSandboxRequest(config=config), timeout=CALL_LIMIT)
    assert [pod["realm"] for pod in json.loads(said(stocked, "pods", "-o", "json"))] == ["kubelet"]
    assert json.loads(said(stocked, "pods", "--realm", "run", "-o", "json")) == []
    code, _, error = ended(stocked, "rm", "web")
    assert (code, "delete the pod with kubectl" in error) == (1, True)
    assert ended(stocked, "rm", "--force", "default/web") == (0, "removed default/web\n", "")


def test_events_and_watching_show_changes_as_they_happen(stocked: Daemon) -> None:
    with (
        background(stocked, "events", "--realm", "run", "-o", "json") as events,
        background(stocked, "ps", "--watch", "-a", "-o", "json") as watching,
    ):
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline()) == []
        assert events.stdout is not None
        # The stream has begun when the first event has come; until then nothing was promised.
        while not select.select([events.stdout], [], [], 0)[0]:
            said(stocked, "run", "--rm", "--name", "first", IMAGE, "true")
        said(stocked, "run", "--name", "seen", IMAGE, "true")
        for line in watching.stdout:
            rows = {row["pod"]: row for row in json.loads(line)}
            if "seen" in rows and rows["seen"]["state"] == "exited":
                break
        said(stocked, "rm", "seen")
        entered: dict[str, list[str]] = {"run/seen": [], "run/seen/busybox": []}
        for line in events.stdout:
            event = json.loads(line)
            entered.setdefault(event["name"], []).append(event["state"])
            if (event["name"], event["state"]) == ("run/seen", "removed"):
                break
    assert entered["run/seen/busybox"][-3:] == ["exited", "removing", "removed"]
    assert [state for state in entered["run/seen"] if state in ("ready", "notready", "removed")][-3:] == [
        "ready",
        "notready",
        "removed",
    ]


def test_the_node_tells_about_itself(stocked: Daemon) -> None:
    assert f"process {stocked.pid}," in said(stocked, "status")
    assert "runc     yes, the first usable one" in said(stocked, "handlers")
    shown = said(stocked, "config", "show", "--origin", "network.builtin", "log.format")
    assert re.search(rf"network\.builtin +{re.escape(str(stocked.config_file))}:\d+ +true", shown)
    assert re.search(r'log\.format +default +"text"', shown)
    checks = json.loads(crisp(stocked, "doctor", "-o", "json").stdout)
    assert {"kernel", "cgroups", "binaries", "network"} <= {check["area"] for check in checks}


def test_a_pull_on_a_terminal_shows_bars_and_cleans_up_after_itself(served: Daemon) -> None:
    if IMAGE in said(served, "images"):
        said(served, "rmi", IMAGE)
    parent, child = pty.openpty()
    try:
        process = subprocess.Popen(
            command("pull", IMAGE),
            env=environment(served, TERM="xterm", COLUMNS="100"),
            stdin=subprocess.DEVNULL,
            stdout=child,
            stderr=child,
        )
        os.close(child)
        shown = b""
        while select.select([parent], [], [], 30)[0]:
            try:
                shown += os.read(parent, 65536)
            except OSError:  # EIO: the other end is closed
                break
        assert process.wait(timeout=30) == 0
    finally:
        os.close(parent)
    assert b"from " in shown
    assert b"\x1b[?25h" in shown, "the cursor is shown again"


def test_the_shell_completes_names(stocked: Daemon) -> None:
    said(stocked, "run", "-d", "--name", "complete-me", IMAGE, "sleep", "60")

    def completed(line: str) -> list[str]:
        words = line.split(" ")
        done = subprocess.run(
            command(),
            env=environment(
                stocked, _CRISP_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return done.stdout.split()

    assert completed("crisp logs run/comp") == ["run/complete-me", "run/complete-me/busybox"]
    assert completed("crisp stop complete-me/") == ["complete-me/busybox"]
    assert completed("crisp run --handler c") == ["crun"]
    assert "docker.io/library/busybox:latest" in completed("crisp rmi docker.io/library/b")


def test_listing_is_quick_and_loads_no_validators(stocked: Daemon) -> None:
    loaded = subprocess.run(
        [
            sys.executable, "-c",
            "import sys; from cli.main import main; main(sys.argv[1:]);"
            "print({'pydantic', 'rich', 'yaml'} & set(sys.modules), file=sys.stderr)",
            "ps",
        ],
        env=environment(stocked), capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert loaded.stderr == "set()\n"
    times = []
    for _ in range(5):
        began = time.monotonic()
        said(stocked, "ps")
        times.append(time.monotonic() - began)
    # Generous, for a loaded machine and sources that are compiled each time; docs/performance.md has figures.
    assert min(times) < 1.5
