"""A subset of the tests in the virtual machine, for a run on a machine without systemd: `--node`.

`tests/run.sh --node tests/node/test_subset.py` runs it alone. What is in it was chosen for what only systemd
and cgroup version 2 show, within ten minutes.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from tests import figures
from tests.node import vm
from tests.node.image import image
from tests.node.selection import script, trees

SUBSET = ("tests/component/cri/test_update_resources.py", "tests/component/cri/test_pod_stats.py")
LIMIT = 1500.0  # seconds for boot, tests and the end; a warm run on a quiet machine takes a third


@pytest.mark.timeout(2 * LIMIT)
def test_a_subset_passes_under_systemd_on_cgroup_version_2(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    if "NODE_BOOT" in os.environ:
        pytest.skip("this is the virtual machine")
    if not pytestconfig.getoption("node"):
        pytest.skip("boots a virtual machine, minutes: with --node")
    outcome = vm.run(image(), script(list(SUBSET)), tmp_path, trees=trees([]), limit=LIMIT)
    report = outcome.directory / "results" / "junit.xml"
    assert report.exists(), (outcome, (tmp_path / "output.log").read_text()[-4000:])
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    ends = [(case.get("name", ""), ended(case)) for case in suite.iter("testcase")]
    counts = Counter(end for _, end in ends)
    figures.line(
        "node",
        f"Debian 13, systemd, cgroup version 2: {counts['passed']} passed, {counts['failed']} failed,"
        f" {counts['skipped']} skipped, {float(suite.get('time', 0)):.0f} s;"
        f" {outcome.seconds:.0f} s with the boot",
    )
    assert [name for name, end in ends if end == "failed"] == [], (tmp_path / "output.log").read_text()[
        -8000:
    ]
    assert outcome.status == 0
    assert counts["passed"] > 0


def ended(case: ET.Element) -> str:
    """How a test case of a JUnit report ended."""
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in kinds else "passed"
