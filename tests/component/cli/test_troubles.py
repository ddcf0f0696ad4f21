"""Interrupts, mistakes, a reader that leaves, a daemon that dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.component.cli.person import (
    IMAGE,
    TICKS,
    background,
    ended,
    environment,
    reads,
    said,
)
from tests.daemon import Daemon


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
