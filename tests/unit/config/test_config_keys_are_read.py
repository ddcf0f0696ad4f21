"""A key that no code reads would promise what nobody keeps."""

from __future__ import annotations

import ast
from pathlib import Path

from config.problems import known_keys

ROOT = Path(__file__).resolve().parents[3]


def test_every_key_is_read_outside_of_the_models() -> None:
    sources = [
        file
        for room in ("api", "shim", "config")
        for file in (ROOT / room).rglob("*.py")
        if not file.name.endswith(("_pb2.py", "_pb2_grpc.py"))
    ]
    read = {
        node.attr
        for file in sources
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    assert [key for key in known_keys() if key.rpartition(".")[2] not in read] == []
