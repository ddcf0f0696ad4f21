"""The copy of each record beside its object, from which a damaged database is rebuilt.

A pod's and a container's copy lies in the object's own directory; images and layers have theirs under
`mirror/`. A copy is written after the database has committed and removed before the database forgets, so one
without a row means that the row was lost. Copies are not flushed to disk one by one: they matter only when
the database is damaged as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shim.files import make_private_directory, write_atomic

NAME = "record.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One stored record: its kind and id, the sequence number of its last change, its JSON text."""

    kind: str
    id: str
    seq: int
    body: bytes

    def checksum(self) -> bytes:
        """Over everything that makes the record, so that rows cannot change places either."""
        head = f"{self.kind}\n{self.id}\n{self.seq}\n".encode()
        return hashlib.blake2b(head + self.body, digest_size=16).digest()


class Mirror:
    """The copies below one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def path(self, kind: str, id_: str) -> Path:
        """Where the copy of one record lies."""
        if kind in ("pod", "container"):
            return self._state_dir / f"{kind}s" / id_ / NAME
        return self._state_dir / "mirror" / kind / f"{id_.replace(':', '-')}.json"

    def write(self, row: Row) -> None:
        """Replace the copy; a missing directory is made."""
        path = self.path(row.kind, row.id)
        document = {
            "kind": row.kind,
            "id": row.id,
            "seq": row.seq,
            "checksum": row.checksum().hex(),
            "body": row.body.decode(),
        }
        data = json.dumps(document).encode()
        try:
            write_atomic(path, data)
        except FileNotFoundError:
            for directory in (path.parent.parent, path.parent):
                make_private_directory(directory)
            write_atomic(path, data)

    def remove(self, kind: str, id_: str) -> None:
        """Remove the copy, and the object's directory if that leaves it empty; absent is success."""
        path = self.path(kind, id_)
        path.unlink(missing_ok=True)
        if kind in ("pod", "container"):
            with suppress(OSError):
                path.parent.rmdir()

    def rows(self) -> Iterator[Row | Path]:
        """Every copy that is there: the row, or the path of one that cannot be read or is damaged."""
        for pattern in ("pods/*/" + NAME, "containers/*/" + NAME, "mirror/*/*.json"):
            yield from self._matching(pattern)

    def rows_of(self, kind: str) -> Iterator[Row | Path]:
        """The same of images ("image") or layers ("layer") alone."""
        return self._matching(f"mirror/{kind}/*.json")

    def _matching(self, pattern: str) -> Iterator[Row | Path]:
        for path in sorted(self._state_dir.glob(pattern)):
            row = _read(path)
            yield row if row is not None else path


def _read(path: Path) -> Row | None:
    try:
        document: Any = json.loads(path.read_bytes())
        row = Row(document["kind"], document["id"], document["seq"], document["body"].encode())
        good = row.checksum().hex() == document["checksum"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return row if good else None
