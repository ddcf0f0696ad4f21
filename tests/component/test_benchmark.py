"""A few rounds of the benchmark, so that its command in docs/performance.md keeps working."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import rows
from tests.daemon import TREE

OURS_ALONE = {("fsck of 1 GB of layers", "containerd")}
BESIDE = "· Status during"
"""Rows of a client beside the work, which in a smoke run may be over before it has asked."""


@pytest.mark.timeout(600)  # the first time containerd is compiled
def test_every_group_of_the_benchmark_gives_figures_for_both_sides(tmp_path: Path) -> None:
    samples = tmp_path / "samples.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--smoke", "--json", samples],
        cwd=TREE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    for group in rows.GROUPS:
        assert f"  {group}: " in done.stderr
    missing = {
        name: side
        for name, values in json.loads(samples.read_text()).items()
        for side in ("crispd", "containerd")
        if not values.get(side) and (name, side) not in OURS_ALONE and not name.startswith(BESIDE)
    }
    assert missing == {}
