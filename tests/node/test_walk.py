"""docs/node.md, walked: each command and each file of the page, as written, from a machine without Crisp to a
pod that runs.

Runs in the virtual machine alone: `tests/node/run.sh tests/node/test_walk.py`. There is no network in there:
pip is told of a folder with the wheels, and a mirror's file names the registry that has busybox.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import leaks, machine
from tests.daemon import TREE
from tests.images.registry import Registry, write_hosts
from tests.node.operating import remove_all_pods, run
from tests.parts.build import directory, program

pytestmark = pytest.mark.skipif(
    "NODE_BOOT" not in os.environ,
    reason="only in the virtual machine: tests/node/run.sh tests/node/test_walk.py",
)
LIMIT = 60.0 * machine.PATIENCE  # seconds; the page says "within seconds"
PAGE = TREE / "docs/node.md"
BLOCK = re.compile(r"(?:^`(?P<path>/[^`]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Step:
    """A block of the page: commands, or the content of the file at `path`."""

    kind: str
    text: str
    path: str


def steps(section: str) -> list[Step]:
    """The blocks of one section of the page, in order."""
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    found = BLOCK.finditer(text)
    return [Step(one["kind"], one["text"], one["path"] or "") for one in found]


@pytest.fixture
def leak_scope() -> leaks.Scope:
    return leaks.Scope(expected=("*",))  # what the page installs stays


@pytest.fixture
def fresh(prepared_machine: None, image_registry: Registry) -> Iterator[dict[str, str]]:
    """A machine without Crisp, with what stands in for its network; the environment of its user."""
    assert not Path("/opt/crisp").exists(), "Crisp is installed here already"
    Path("/etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /opt/wheels\n")
    write_hosts(Path("/etc/crisp/certs.d"), image_registry)
    if not Path("/etc/resolv.conf").exists():  # kubelet starts no pod without it
        Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    program("kubelet", "kubelet")
    tools = f"{directory('kubelet')}:{directory('cri-tools')}"
    yield {"PATH": f"{machine.SYSTEM_PATH}:{tools}", "HOME": "/root", "LANG": "C.UTF-8"}
    remove_all_pods()
    run("systemctl", "disable", "--now", "crispd")


def said(command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["sh", "-euc", command], cwd=TREE, env=environment, capture_output=True, text=True,
        check=False, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_the_page_leads_to_a_pod_that_runs(fresh: dict[str, str]) -> None:
    install, package, configure = steps("1. The runtime")
    assert "build.sh" in package.text  # the other way, which test_package.py goes
    said(install.text, fresh)
    told = said(configure.text, fresh)
    print(told)
    settings, start = steps("2. kubelet")
    (hello,) = steps("3. A pod")
    for step in (settings, hello):
        Path(step.path).parent.mkdir(parents=True, exist_ok=True)
        Path(step.path).write_text(step.text)
    commands = start.text.splitlines()
    assert commands[-1].startswith("kubelet ")  # which stays in the foreground
    said("\n".join(commands[:-1]), fresh)
    with Path("/var/log/kubelet.log").open("wb") as log:
        kubelet = subprocess.Popen(
            commands[-1].split(), cwd=TREE, env=fresh, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        (look,) = re.findall(r"`(crictl [^`]+)`", PAGE.read_text())
        began = time.monotonic()
        while not re.search(r"\bRunning\s+main\b", said(look, fresh)):
            assert kubelet.poll() is None, Path("/var/log/kubelet.log").read_text()[-4000:]
            assert time.monotonic() < began + LIMIT, Path("/var/log/kubelet.log").read_text()[-4000:]
            time.sleep(1)
        print(f"the pod runs {time.monotonic() - began:.0f} s after kubelet's start")
        print(said(look, fresh), said("crisp ps", fresh))
        Path(hello.path).unlink()
        while "main" in said(look, fresh):
            assert time.monotonic() < began + 2 * LIMIT, "the pod stays"
            time.sleep(1)
    finally:
        kubelet.terminate()
        kubelet.wait()
