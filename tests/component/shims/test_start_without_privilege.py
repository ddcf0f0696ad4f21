"""Starting a shim that insists on a lower OOM score where the node may not give it one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shim.kernel import capabilities
from shim.runtimes.shimv2.bootstrap import USER_NAMESPACE, bearing_refusals

READS = ["/bin/sh", "-c", "cat /proc/$$/uid_map /proc/self/uid_map; grep -c uid_map /proc/self/mountinfo"]
ASKS = "from shim.kernel import capabilities as c; print(c.has(c.SYS_RESOURCE)); c.keep([]); print(c.has(21))"


def test_one_process_alone_is_shown_another_map_and_nothing_stays_mounted(tmp_path: Path) -> None:
    shown = tmp_path / "uid map"
    shown.write_text(USER_NAMESPACE)
    said = subprocess.run(bearing_refusals(READS, shown), capture_output=True, text=True, check=True)
    truth = Path("/proc/self/uid_map").read_text()
    assert (said.stdout, said.stderr) == (f"{USER_NAMESPACE}{truth}1\n", "")
    assert "uid_map" not in Path("/proc/self/mountinfo").read_text()
    assert Path("/proc/self/uid_map").read_text() == truth != USER_NAMESPACE


def test_what_the_process_may_do_is_read_from_the_kernel() -> None:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)
    held = int(line.split()[1], 16)
    numbers = range(40)
    assert [capabilities.has(number) for number in numbers] == [bool(held >> n & 1) for n in numbers]
    asked = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True).stdout
    assert asked == f"{bool(held >> 24 & 1)}\nFalse\n"
