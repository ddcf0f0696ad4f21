"""What is committed beside the `.proto` files is what they generate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generating_the_protobuf_modules_again_changes_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "api.proto.generate", str(tmp_path)], cwd=ROOT, check=True)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    committed = {
        path.relative_to(ROOT): path.read_text()
        for room in ("api/proto", "shim/runtimes/shimv2/proto")
        for path in (ROOT / room).glob("*_pb2*")
    }
    assert sorted(made) == sorted(committed)
    assert [name for name in made if made[name] != committed[name]] == []
