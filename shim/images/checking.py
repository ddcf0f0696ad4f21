"""One stored layer held against what it must be, by the process that makes layers ready. Blocking."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from oci.errors import BadInput
from oci.layers.erofs import IndexBuilder, is_whole
from shim.images.cancellation import Cancellation
from shim.images.layout import Layout
from shim.images.parents import encode_implied
from shim.images.progress import LayerMeter, Phase
from shim.images.routes import Routes
from shim.images.seal import hash_file, read_or_none, seal_of_index, seal_of_tree


class Part(StrEnum):
    """What of a layer is wrong."""

    NOTHING = ""
    CONTENT = "content"  # the tar, or the unpacked tree: it must come again
    INDEX = "index"  # it can be made from the tar
    BLOB = "blob"  # the kept compressed stream: nothing runs on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found: in words where something is wrong, and how many bytes were read."""

    part: Part
    problem: str
    read: int
    seal: str = ""  # of a sound index whose seal was not known


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLayer:
    """The layer of a record.

    A seal of "" is not known, the record being of a version that made none. Its index may differ from what
    is made today; that it is whole it says itself.
    """

    layout: Layout
    diff_id: str
    erofs: bool
    seal: str
    blob: str
    what: str

    def run(self, cancellation: Cancellation, meter: LayerMeter, _routes: Routes, /) -> Checked:
        """Reads the whole layer. An unreadable file is a finding, not an error. Raises Cancelled."""
        meter.phase = Phase.CHECKING

        def step(size: int) -> None:
            cancellation.check()
            meter.received += size

        seal = ""
        try:
            part, problem, seal = self._files(step) if self.erofs else (*self._tree(step), "")
            if not problem and self.blob:
                part, problem = self._blob(step)
        except OSError as failure:
            part, problem = Part.CONTENT, f"{failure.filename or self.what}: {failure.strerror or failure}"
        return Checked(
            part=part if problem else Part.NOTHING, problem=problem, read=meter.received, seal=seal
        )

    def _files(self, step: Callable[[int], None]) -> tuple[Part, str, str]:
        """The part, what is wrong with it, and the seal that was not known."""
        path = self.layout.tar(self.diff_id)
        found = _digest(path, step)
        if found != self.diff_id:
            return Part.CONTENT, f"{path}: {_missing_or(f'its digest is {found}', found)}", ""
        index, implied = self.layout.index(self.diff_id), self.layout.implied(self.diff_id)
        content, beside = read_or_none(index), read_or_none(implied)
        if content is None:
            return Part.INDEX, f"{index}: it is missing", ""
        found = seal_of_index(content, beside or b"")
        sound = found == self.seal if self.seal else is_whole(content) and self._implied(step) == beside
        if not sound:
            return Part.INDEX, f"{index}: it is not what was made of the layer", ""
        return Part.NOTHING, "", "" if self.seal else found

    def _implied(self, step: Callable[[int], None]) -> bytes | None:
        """What must stand in the file of undescribed directories; None where there must be none."""
        builder = IndexBuilder()
        try:
            with self.layout.tar(self.diff_id).open("rb", buffering=0) as file:
                while block := file.read(1 << 20):
                    step(0)
                    builder.receive(block)
            builder.finish()
        except BadInput:
            return None
        return encode_implied(builder.implied) if builder.implied else None

    def _tree(self, step: Callable[[int], None]) -> tuple[Part, str]:
        path = self.layout.tree(self.diff_id)
        if not path.is_dir():
            return Part.CONTENT, f"{path}: it is missing"
        if not self.seal:
            return Part.NOTHING, ""
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = seal_of_tree(directory, step=step)
        finally:
            os.close(directory)
        return Part.CONTENT, "" if found == self.seal else f"{path}: a file in it is not what it was"

    def _blob(self, step: Callable[[int], None]) -> tuple[Part, str]:
        path = self.layout.blob(self.diff_id)
        found = _digest(path, step)
        return Part.BLOB, (
            "" if found == self.blob else f"{path}: {_missing_or(f'its digest is {found}', found)}"
        )


def _digest(path: Path, step: Callable[[int], None]) -> str:
    """ "sha256:…", "" where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    try:
        return f"sha256:{hash_file(descriptor, step).hexdigest()}"
    finally:
        os.close(descriptor)


def _missing_or(words: str, found: str) -> str:
    return words if found else "it is missing"
