"""What the README says of a new runtime is true: four lines, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.loading import load
from config.models import HandlerSettings

TREE = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("page", ["README.md", "docs/handlers/README.md"])
def test_a_runtime_like_runc_takes_four_lines(page: str, tmp_path: Path) -> None:
    text = next(
        block
        for block in re.findall(r"```toml\n(.*?)```", (TREE / page).read_text(), re.DOTALL)
        if "[handlers." in block
    )
    assert len(text.splitlines()) == 4
    file = tmp_path / "config.toml"
    file.write_text(text)
    assert load(file).settings.handlers == {
        "youki": HandlerSettings(
            kind="oci", binary=Path("/usr/local/bin/youki"), annotations=("io.example.*",)
        )
    }
