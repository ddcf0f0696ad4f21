"""Conversations of real clients with the daemon, kept as files: `tests/golden/streams/*.json`.

`CRISP_RECORD_STREAMS=DIRECTORY pytest tests/conformance/test_streaming_clients.py` makes them anew from what
kubectl says through the double of the API server. The token in the path is taken out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.api_server import Passed

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "streams"
LIMIT = 16 * 1024  # bytes of a conversation that is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One connection. `client` and `server` are what each said behind the answer, joined."""

    name: str
    kind: str
    asked: dict[str, list[str]]
    head: bytes
    protocol: str
    client: bytes
    server: bytes


def write(directory: Path, name: str, passed: Iterable[Passed]) -> None:
    for number, one in enumerate(passed):
        if sum(len(data) for _, data in one.said) > LIMIT:
            continue
        line, _, headers = one.head.partition(b"\r\n")
        method, path, version = line.split(b" ")
        path = b"/".join((*path.split(b"/")[:2], b"TOKEN"))
        document = {
            "kind": one.kind,
            "asked": one.query,
            "head": (b" ".join((method, path, version)) + b"\r\n" + headers).decode("latin-1"),
            "protocol": one.protocol,
            **{
                side: base64.b64encode(b"".join(data for who, data in one.said if who == side)).decode()
                for side in ("client", "server")
            },
        }
        file = directory / f"{name}-{number}-{one.kind}.json"
        file.write_text(json.dumps(document, indent=1) + "\n")


def read() -> list[Recording]:
    """All of them, by name."""
    found = []
    for path in sorted(GOLDEN.glob("*.json")):
        document = json.loads(path.read_text())
        found.append(
            Recording(
                name=path.stem,
                kind=document["kind"],
                asked=document["asked"],
                head=document["head"].encode("latin-1"),
                protocol=document["protocol"],
                client=base64.b64decode(document["client"]),
                server=base64.b64decode(document["server"]),
            )
        )
    return found
