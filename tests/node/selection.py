"""What goes into the machine for a run of tests: pytest's words as a script, the tree, the parts."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.machine import EMULATED
from tests.node.image import TREE
from tests.node.vm import POWER_OFF
from tests.parts.build import build, directory
from tests.parts.table import PARTS

PARTS_INSIDE = ("cri-tools", "runc", "cni-plugins", "kubelet")
SOURCES = (
    "api", "benchmarks", "cli", "config", "deploy", "docs", "oci", "shim", "tests",
    "pyproject.toml", "requirements.lock", "requirements-dev.lock", "README.md", "LICENSE",
)  # fmt: skip
_SCRIPT = """\
export CRISP_TESTS_PATIENCE={patience} NODE_BOOTS={boots}
report=$NODE_RESULTS/junit.xml
[ $NODE_BOOT = {boots} ] || report=$NODE_RESULTS/junit-$NODE_BOOT.xml
status=0
python -m pytest -p no:cacheprovider --junitxml="$report" {words} || status=$?
[ $NODE_BOOT != {boots} ] && [ $status = 0 ] || exit $status
[ $NODE_BOOT = 1 ] || exit {again}
sync "$report"
echo b >/proc/sysrq-trigger
"""


def script(words: list[str], boots: int = 1) -> str:
    """pytest's words, run again after each of `boots` - 1 reboots. The first is a reset without warning."""
    return _SCRIPT.format(patience=EMULATED, boots=boots, words=shlex.join(words), again=POWER_OFF)


def trees(further: list[str]) -> dict[str, Path]:
    """The tree as it stands, the usual parts that are in the cache, and `further` ones, built here."""
    top = {f"crisp/{name}": TREE / name for name in SOURCES}
    parts = [directory(name) for name in PARTS_INSIDE if name in PARTS and directory(name).exists()]
    parts += [build(name) for name in further]
    return top | {f"var/cache/crisp-tests/{path.name}": path for path in parts}
