"""The matrix of clients in docs/streaming.md is the one that tests stand behind, a test for each cell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.streams.matrix import COLUMNS, FILES, rows, table

TREE = Path(__file__).resolve().parents[2]


def test_the_page_has_the_matrix_as_it_is() -> None:
    assert table() in (TREE / "docs/streaming.md").read_text()


def test_every_cell_is_a_test_that_runs() -> None:
    """Collected with its very parameters; none of these files skips anything."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *FILES],
        cwd=TREE, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    collected = set(done.stdout.splitlines())
    missing = {cell for row in rows() for cell in row.cells if cell} - collected
    assert missing == set()
    assert all(len(row.cells) == len(COLUMNS) for row in rows())
    skipping = ("pytest.skip", "mark.skip", "importorskip")
    assert [name for name in FILES if any(word in (TREE / name).read_text() for word in skipping)] == []
