"""Conversations of real clients with the daemon, kept as files: `tests/golden/streams/*.json`.

With `CRISP_RECORD_STREAMS=DIRECTORY` in their environment tests of tests/conformance make them anew: all of
`test_streaming_clients.py`, and `test_critest_passes[runc]` and
`test_streaming_passes_over_websockets_too[runc]`
of `test_critest.py`. kubectl's come from what it says through the double of the API server, crictl's and
critest's from what passes through a socket before the daemon's. The token in the path is taken out.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.cri_front import front
from tests.doubles.relay import Passed

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "streams"
RECORD = "CRISP_RECORD_STREAMS"
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


@contextmanager
def recorded(endpoint: str, name: str) -> Iterator[str]:
    """The endpoint to use within the block: the daemon's own, or one that records streams if asked to."""
    directory = os.environ.get(RECORD)
    if directory is None:
        yield endpoint
        return
    with front(endpoint) as (other, made):
        yield other
    write(Path(directory), name, made.passed)


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
