"""`crisp run` and what one does with a container: logs, exec, stop, rm."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.component.cli.person import (
    IMAGE,
    TICKS,
    background,
    ended,
    reads,
    said,
)
from tests.daemon import Daemon


def test_an_archive_is_imported_and_runs_without_a_registry(served: Daemon, image_layout: Path) -> None:
    said(served, "import", str(image_layout))
    assert ended(served, "run", "--rm", "--pull", "never", IMAGE, "echo", "hello") == (0, "hello\n", "")


def test_run_gives_output_errors_and_the_exit_status(stocked: Daemon) -> None:
    script = "echo out; echo err >&2; printf end; exit 7"
    assert ended(stocked, "run", "--rm", "--name", "gone", IMAGE, "sh", "-c", script) == (
        7,
        "out\nend",
        "err\n",
    )
    assert json.loads(said(stocked, "pods", "-a", "-o", "json")) == []
    assert list((stocked.state_dir / "logs").glob("*gone*")) == []


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_run_does_what_its_options_say(stocked: Daemon, handler: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("from the node\n")
    script = (
        "id -u; id -g; pwd; echo $A; cat /data/file; touch /data/x 2>/dev/null || echo read-only; hostname"
    )
    options = ("-e", "A=b c", "-u", "12:34", "-w", "/tmp", "-v", f"{tmp_path}:/data:ro", "--name", "it")
    limits = ("-m", "64MiB", "--cpus", "0.5")
    output = said(stocked, "run", "--rm", "--handler", handler, *options, *limits, IMAGE, "sh", "-c", script)
    assert output == "12\n34\n/tmp\nb c\nfrom the node\nread-only\nit\n"


def test_the_limit_and_the_runtime_configuration_are_what_was_asked_for(stocked: Daemon) -> None:
    said(stocked, "run", "-d", "--name", "limited", "-m", "64MiB", "--cpus", "0.5", IMAGE, "sleep", "60")
    spec = json.loads(said(stocked, "inspect", "--spec", "limited/busybox"))
    assert spec["linux"]["resources"]["memory"]["limit"] == 64 * 2**20
    assert spec["linux"]["resources"]["cpu"]["quota"] == 50_000
    request = json.loads(said(stocked, "inspect", "--request", "run/limited/busybox"))
    assert request["args"] == ["sleep", "60"]
    whole = json.loads(said(stocked, "inspect", "limited"))
    assert (whole["kind"], whole["name"], whole["realm"]) == ("pod", "run/limited", "run")


def test_a_published_port_answers(stocked: Daemon) -> None:
    port = 20000 + os.getpid() % 20000
    said(
        stocked, "run", "-d", "--name", "web", "-p", f"{port}:80", IMAGE,
        "sh", "-c", "mkdir /www; echo hello > /www/index.html; echo ready; exec httpd -f -p 80 -h /www",
    )  # fmt: skip
    with background(stocked, "logs", "-f", "web") as following:
        reads(following, "ready")
    page = subprocess.run(
        ["curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "0", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert page.stdout == "hello\n"


def test_a_container_s_life_in_the_background(stocked: Daemon) -> None:
    script = f"trap 'echo bye; exit 5' TERM; {TICKS}"
    assert said(stocked, "run", "-d", "--name", "job", IMAGE, "sh", "-c", script) == "run/job\n"
    with background(stocked, "logs", "--follow", "run/job") as following:
        reads(following, "tick 3")
        (row,) = json.loads(said(stocked, "ps", "-o", "json"))
        assert (row["namespace"], row["pod"], row["name"], row["state"]) == (
            "run",
            "job",
            "busybox",
            "running",
        )
        assert Path(f"/proc/{row['pid']}").exists()
        assert said(stocked, "exec", "job", "sh", "-c", "echo $((6*7))") == "42\n"
        assert ended(stocked, "exec", "job/busybox", "sh", "-c", "exit 9") == (9, "", "")
        code, _, error = ended(stocked, "rm", "job")
        assert (code, "crisp stop run/job" in error) == (1, True)
        assert said(stocked, "stop", "-t", "5", row["id"][:12]) == "stopped run/job/busybox\n"
        assert following.wait(timeout=10) == 0, "following ends with the container"
    assert said(stocked, "logs", "--tail", "1", "job") == "bye\n"
    assert "exited (5)" in said(stocked, "ps", "-a")
    assert said(stocked, "ps") == said(stocked, "ps").splitlines()[0] + "\n"
    assert said(stocked, "rm", "job") == "removed run/job\n"
    assert ended(stocked, "logs", "job")[0] == 3
    assert list((stocked.state_dir / "logs").glob("*job*")) == []
