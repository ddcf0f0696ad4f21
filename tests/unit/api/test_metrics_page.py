from __future__ import annotations

from pathlib import Path

from api.metrics_page import page


def test_the_page_is_what_the_table_says() -> None:
    path = Path(__file__).resolve().parents[3] / "docs/metrics.md"
    assert path.read_text() == page(), "run: python -m api.metrics_page > docs/metrics.md"
