"""Runs critest, and says of each of its specs how it ended; knows its report and nothing of the daemon."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.machine import EMULATED, PATIENCE
from tests.parts.build import program
from tests.streams import recordings

NODES = (
    6 if PATIENCE < EMULATED else 2
)  # specs at the same time: most of what they do is wait, if not emulated
SPEC_LIMIT = 1200 * PATIENCE  # seconds for all of them together
CALL_LIMIT = 60 * PATIENCE  # seconds that critest gives a call
SLICE = Path("/sys/fs/cgroup/test.slice")
"""The parent that critest gives pods under systemd; kubelet would take it away, critest does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One spec: `state` is ginkgo's ("passed", "failed", "skipped", ...), `message` why it did not pass."""

    spec: str
    state: str
    seconds: float
    message: str = ""


def specs() -> frozenset[str]:
    """The full names of all specs that the binary has, without its benchmarks, which are no tests."""
    with tempfile.TemporaryDirectory(prefix="crisp-critest.") as scratch:
        report = Path(scratch, "report.json")
        subprocess.run(
            [program("cri-tools", "critest"), "--ginkgo.dry-run", f"--ginkgo.json-report={report}"],
            cwd=scratch, check=True, capture_output=True, timeout=60 * PATIENCE,
        )  # fmt: skip
        return frozenset(o.spec for o in read_report(report) if o.state == "passed")


def run(
    endpoint: str,
    handler: str,
    *,
    skip: Iterable[str] = (),
    focus: str = "",
    only: Iterable[str] = (),
    flags: Iterable[str] = (),
) -> list[Outcome]:
    """Every spec but those of `skip` against a CRI socket ("unix://...") and one of its handlers.

    Those that were skipped on request are not among the outcomes. `focus` is what the names of the specs to
    run begin with, `only` are whole names, `flags` are critest's own.
    """
    skipped, wanted = frozenset(skip), frozenset(only)
    transport = "websocket" if any(flag.startswith("-websocket") for flag in flags) else "spdy"
    with (
        recordings.recorded(endpoint, f"critest-1.36.0-{transport}") as endpoint,
        tempfile.TemporaryDirectory(prefix="crisp-critest.") as scratch,
    ):
        binary = Path(scratch, "critest.test")  # ginkgo knows a compiled suite by this ending
        binary.symlink_to(program("cri-tools", "critest"))
        done = subprocess.run(
            [
                program("cri-tools", "ginkgo"),
                f"--nodes={NODES}",
                f"--timeout={SPEC_LIMIT:.0f}s",
                "--no-color",
                f"--output-dir={scratch}",
                "--json-report=report.json",
                "--skip=benchmark about",
                *(f"--skip={literal(name)}$" for name in sorted(skipped)),
                *([f"--focus={literal(focus)}"] if focus else []),
                *(f"--focus={literal(name)}$" for name in sorted(wanted)),
                binary,
                "--",
                f"-runtime-endpoint={endpoint}",
                f"-image-endpoint={endpoint}",
                f"-runtime-handler={handler}",
                f"-runtime-service-timeout={CALL_LIMIT:.0f}s",
                *flags,
            ],
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
        if SLICE.exists():
            subprocess.run(["systemctl", "stop", SLICE.name], check=True)
        report = Path(scratch, "report.json")
        if not report.exists():
            raise RuntimeError(
                f"critest ended with {done.returncode} and no report:\n{done.stdout[-4000:]}{done.stderr}"
            )
        return [
            o
            for o in read_report(report)
            if o.spec not in skipped
            and o.spec.startswith(focus)
            and (not wanted or o.spec in wanted)
            and "benchmark about" not in o.spec
        ]


def literal(text: str) -> str:
    """The text as a regular expression of Go that matches it alone."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def read_report(path: Path) -> list[Outcome]:
    """Ginkgo's JSON report: suites, each with a report for each spec and set-up node."""
    return [
        Outcome(
            spec=" ".join([*(report["ContainerHierarchyTexts"] or ()), report["LeafNodeText"]]),
            state=report["State"],
            seconds=report["RunTime"] / 1e9,
            message=(report.get("Failure") or {}).get("Message", ""),
        )
        for suite in json.loads(path.read_text())
        for report in suite["SpecReports"]
        if report["LeafNodeType"] == "It"
    ]
