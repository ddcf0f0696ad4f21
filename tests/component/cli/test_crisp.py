"""The `crisp` command as a person types it: a process of its own, on a daemon of the tests' own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from api.proto import cri_pb2
from tests.daemon import CALL_LIMIT, TREE, Daemon

IMAGE = "busybox"
TICKS = "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.1; done"


def environment(daemon: Daemon, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nowhere",
        "LANG": "C.UTF-8",
        "CRISP_CONFIG": str(daemon.config_file),
        "PYTHONPATH": str(TREE),
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
        **more,
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", *arguments]


def crisp(daemon: Daemon, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(*arguments),
        env=environment(daemon),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,
    )


def said(daemon: Daemon, *arguments: str) -> str:
    """Its output; it must succeed."""
    done = crisp(daemon, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def ended(daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    done = crisp(daemon, *arguments)
    return done.returncode, done.stdout, done.stderr


@contextmanager
def background(daemon: Daemon, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*arguments),
        env=environment(daemon),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def reads(process: subprocess.Popen[str], wanted: str) -> list[str]:
    """Its lines up to the first that begins like that."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(wanted):
            return lines
    raise AssertionError(f"{wanted!r} is not in {lines}; {process.stderr and process.stderr.read()}")


@pytest.fixture
def stocked(served: Daemon) -> Daemon:
    """The shared daemon with an image."""
    said(served, "pull", "-q", IMAGE)
    return served


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


def test_a_second_pod_of_a_name_is_refused_also_at_the_same_time(stocked: Daemon) -> None:
    arguments = ("run", "--rm", "--name", "one", IMAGE, "sh", "-c", "echo mine; sleep 1")
    with background(stocked, *arguments) as first, background(stocked, *arguments) as second:
        ends = [(process.communicate(timeout=60), process.returncode) for process in (first, second)]
    ends.sort(key=lambda end: end[1])
    assert ends[0] == (("mine\n", ""), 0)
    assert ends[1][1] == 1
    assert "run/one exists already" in ends[1][0][1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_container_properly(stocked: Daemon, number: signal.Signals) -> None:
    script = f"trap 'echo stopping; exit 5' TERM; {TICKS}"
    with background(stocked, "run", "--rm", "--name", "i", IMAGE, "sh", "-c", script) as running:
        reads(running, "tick 2")
        running.send_signal(number)
        out, error = running.communicate(timeout=30)
    assert (running.returncode, out.splitlines()[-1], error) == (5, "stopping", "crisp: stopping run/i\n")
    assert json.loads(said(stocked, "pods", "-a", "-o", "json")) == []


def test_a_second_interrupt_kills_what_does_not_stop(stocked: Daemon) -> None:
    with background(stocked, "run", "--rm", "--name", "i", IMAGE, "sh", "-c", TICKS) as running:
        reads(running, "tick 2")
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        assert running.stderr.readline() == "crisp: stopping run/i\n"
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=8)
    assert (running.returncode, error) == (137, "crisp: killing run/i\n")


def test_a_reader_that_leaves_ends_the_container_and_it_is_removed(stocked: Daemon) -> None:
    script = f"trap 'exit 5' TERM; {TICKS}"
    with background(stocked, "run", "--rm", IMAGE, "sh", "-c", script) as running:
        reads(running, "tick 1")
        assert running.stdout is not None
        running.stdout.close()
        assert running.wait(timeout=30) == 5
    assert json.loads(said(stocked, "pods", "-a", "-o", "json")) == []


def test_a_command_that_is_killed_leaves_its_container_to_be_found(stocked: Daemon) -> None:
    with background(stocked, "run", "--rm", "--name", "left", IMAGE, "sh", "-c", TICKS) as running:
        reads(running, "tick 2")
        running.kill()
    assert "run/left" in said(stocked, "ps")
    assert said(stocked, "rm", "-f", "left") == "removed run/left\n"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("run", IMAGE, "/nope"), 1, "/nope"),
        (("run", "--handler", "nope", IMAGE), 2, "known are"),
        (("run", "--pull", "never", "nope"), 3, "not in the store"),
        (("run", "-u", "nobodyx", IMAGE), 2, "nobodyx"),
        (("run", "-v", "/does/not/exist:/x", IMAGE), 2, "create it first"),
        (("run", "-p", "80", IMAGE), 2, "HOST:CONTAINER"),
        (("run", "--name", "a/b", IMAGE), 2, "contains '/'"),
        (("run", "-w", "relative", IMAGE), 2, "working_dir"),
        (("exec", "nope", "true"), 3, "nope"),
        (("logs", "nope"), 3, "nope"),
        (("inspect", "nope"), 3, "nope"),
        (("import", "/does/not/exist"), 3, "does not exist"),
        (("import", "/proc/self/status"), 2, ""),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    stocked: Daemon, arguments: tuple[str, ...], status: int, words: str
) -> None:
    code, out, error = ended(stocked, *arguments)
    assert (code, out) == (status, ""), error
    assert error.startswith("crisp: ")
    assert words in error
    assert "Traceback" not in error
    assert json.loads(said(stocked, "pods", "-a", "-o", "json")) == []


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
        run = ("run", "--rm", "--name", "seen", IMAGE, "true")
        # The stream of events has begun when the first of them has come.
        assert events.stdout is not None
        seen: list[dict[str, Any]] = []
        with background(stocked, *run) as running:
            for line in events.stdout:
                seen.append(json.loads(line))
                if (seen[-1]["kind"], seen[-1]["state"]) == ("pod", "removed"):
                    break
            assert running.wait(timeout=30) == 0
        states = [event["state"] for event in seen if event["kind"] == "container"]
        assert states[-3:] == ["exited", "removing", "removed"]
        assert {event["name"] for event in seen if event["kind"] == "container"} == {"run/seen/busybox"}
        for line in watching.stdout:
            if any(row["state"] == "exited" for row in json.loads(line)):
                break


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


def test_containers_and_their_output_outlive_the_daemon(daemon: Daemon) -> None:
    said(daemon, "pull", "-q", IMAGE)
    script = "for i in $(seq 1 60); do echo tick $i; sleep 0.1; done; exit 6"
    with background(daemon, "run", "--rm", "--name", "outlives", IMAGE, "sh", "-c", script) as running:
        before = reads(running, "tick 3")
        daemon.kill()
        code, _, error = ended(daemon, "ps")
        assert code == 4
        assert f"socket {daemon.admin_socket}: nobody answers" in error
        assert "systemctl start crispd" in error
        code, out, error = ended(daemon, "logs", "--tail", "1", "run/outlives")
        assert (code, out[:5], error) == (0, "tick ", "")
        code, _, error = ended(daemon, "doctor")
        assert (code, str(daemon.config_file) in error) == (4, True)
        daemon.start()
        out, error = running.communicate(timeout=60)
    assert running.returncode == 6
    assert "".join(before) + out == "".join(f"tick {number}\n" for number in range(1, 61))
    assert error in ("", "crisp: the daemon does not answer; run/outlives runs on, waiting for it\n")


def test_who_is_not_root_is_told_so(stocked: Daemon) -> None:
    program = (
        "import os, sys; from cli.main import main;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.exit(main(['ps']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(stocked), capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "permission denied" in done.stderr.lower()


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
