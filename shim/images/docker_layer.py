"""A layer of Docker's overlay2 store, as a tar again. Blocking.

Docker keeps no layer's tar, but its files and, in tar-split.json.gz, everything of the tar that is not their
content. Both together give the tar again, byte by byte; that it is the right one, its diff id shows.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oci.errors import BadInput
from shim.images.cancellation import Cancellation
from shim.images.layout import Layout
from shim.images.progress import LayerMeter, Phase
from shim.images.receive import Expected, Received, receive
from shim.images.routes import Routes
from shim.images.settings import Limits
from shim.images.sources import BLOCK, DirectorySource

_LONGEST_LINE = 1 << 20
_FILE, _SEGMENT = 1, 2  # tar-split's entry types


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerLayer:
    """A layer that is put together from its files and its tar-split."""

    split: Path
    files: Path
    diff_id: str
    layout: Layout
    limits: Limits
    what: str

    def run(self, cancellation: Cancellation, meter: LayerMeter, _routes: Routes, /) -> Received:
        meter.phase = Phase.DOWNLOADING
        return receive(
            self._blocks(cancellation, meter),
            Expected(diff_id=self.diff_id),
            self.layout,
            limits=self.limits,
            cancellation=cancellation,
            what=self.what,
            durable=True,
        )

    def _blocks(self, cancellation: Cancellation, meter: LayerMeter) -> Iterator[bytes]:
        try:
            source = DirectorySource(self.files)
        except OSError as failure:
            raise BadInput(f"{self.what}: {self.files}: {(failure.strerror or '').lower()}") from failure
        try:
            for block in self._parts(source):
                cancellation.check()
                meter.received += len(block)
                yield block
        finally:
            source.close()

    def _parts(self, source: DirectorySource) -> Iterator[bytes]:
        try:
            with gzip.open(self.split) as lines:
                while line := lines.readline(_LONGEST_LINE):
                    entry = json.loads(line)
                    if entry["type"] == _SEGMENT:
                        yield base64.b64decode(entry["payload"])
                    elif entry["type"] == _FILE and entry.get("size", 0) > 0:
                        yield from self._content(source, entry)
        except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, RecursionError) as failure:
            raise BadInput(f"{self.what}: {self.split} is damaged: {failure}") from failure

    def _content(self, source: DirectorySource, entry: dict[str, Any]) -> Iterator[bytes]:
        raw = entry.get("name_raw")
        name = base64.b64decode(raw).decode("utf-8", "surrogateescape") if raw else str(entry["name"])
        content = source.open(name.lstrip("/").removeprefix("./"))
        if content is None:
            raise BadInput(f"{self.what}: {self.files}: {name[:200]!r} is missing")
        try:
            if content.size != entry["size"]:
                raise BadInput(
                    f"{self.what}: {self.files}: {name[:200]!r} has {content.size} bytes, "
                    f"the layer {entry['size']}"
                )
            while block := content.read(BLOCK):
                yield block
        finally:
            content.close()
