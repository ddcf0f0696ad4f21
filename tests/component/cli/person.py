"""A person at a terminal: types `crisp`, a process of its own, for a daemon of the tests' own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.daemon import TREE, Daemon

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
