"""What goes into the machine for a run of tests: pytest's words as a script, the tree, the parts."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.machine import EMULATED
from tests.node.image import TREE
from tests.parts.build import build, directory
from tests.parts.table import PARTS

PARTS_INSIDE = ("cri-tools", "runc", "cni-plugins", "kubelet")
SOURCES = (
    "api", "benchmarks", "cli", "config", "deploy", "docs", "oci", "shim", "tests",
    "pyproject.toml", "requirements.lock", "requirements-dev.lock", "README.md", "LICENSE",
)  # fmt: skip
_PYTEST = 'python -m pytest -p no:cacheprovider --junitxml="$NODE_RESULTS/junit.xml" {words}'


def script(words: list[str]) -> str:
    return f"export CRISP_TESTS_PATIENCE={EMULATED}\nexec {_PYTEST.format(words=shlex.join(words))}\n"


def trees(further: list[str]) -> dict[str, Path]:
    """The tree as it stands, the usual parts that are in the cache, and `further` ones, built here."""
    top = {f"crisp/{name}": TREE / name for name in SOURCES}
    parts = [directory(name) for name in PARTS_INSIDE if name in PARTS and directory(name).exists()]
    parts += [build(name) for name in further]
    return top | {f"var/cache/crisp-tests/{path.name}": path for path in parts}
