"""Where the image store keeps what, below its directory. Names only; who writes them is elsewhere."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from oci.workload import ContainerId


def hexadecimal(digest: str) -> str:
    """The 64 digits of "sha256:…"."""
    return digest.removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one store.

    Overlay options hold the paths of all layers of an image, so those are short: `l/` and 24 digits.
    """

    root: Path

    @property
    def layers(self) -> Path:
        """`HEX.tar`, `HEX.erofs` and what else there is of a layer, by diff id."""
        return self.root / "layers"

    @property
    def lower(self) -> Path:
        """Mount points of the EROFS form, and the directories of the directory form."""
        return self.root / "l"

    @property
    def documents(self) -> Path:
        """Manifests and image configurations, by digest, as they came."""
        return self.root / "documents"

    @property
    def partials(self) -> Path:
        """Compressed bytes of layers that did not come to their end, by blob digest (`partial.py`)."""
        return self.root / "partial"

    @property
    def lent(self) -> Path:
        """One file by container: the layers that it holds."""
        return self.root / "lent"

    @property
    def temporary(self) -> Path:
        """What is being written; emptied at every start."""
        return self.root / "tmp"

    @property
    def empty(self) -> Path:
        """The lower directory of an image without layers."""
        return self.root / "empty"

    def directories(self) -> tuple[Path, ...]:
        return (
            self.layers,
            self.lower,
            self.documents,
            self.partials,
            self.lent,
            self.temporary,
            self.empty,
        )

    def tar(self, diff_id: str) -> Path:
        return self.layers / f"{hexadecimal(diff_id)}.tar"

    def index(self, diff_id: str) -> Path:
        return self.layers / f"{hexadecimal(diff_id)}.erofs"

    def implied(self, diff_id: str) -> Path:
        """Directories that the layer does not describe; absent when it describes all (`parents.py`)."""
        return self.layers / f"{hexadecimal(diff_id)}.implied"

    def blob(self, diff_id: str) -> Path:
        """The compressed stream as it came; absent unless such are kept."""
        return self.layers / f"{hexadecimal(diff_id)}.blob"

    def files(self, diff_id: str) -> tuple[Path, ...]:
        """Every file of a layer that there may be; its tree is another matter."""
        return (self.tar(diff_id), self.index(diff_id), self.implied(diff_id), self.blob(diff_id))

    def tree(self, diff_id: str) -> Path:
        return self.lower / hexadecimal(diff_id)[:24]

    def document(self, digest: str) -> Path:
        return self.documents / hexadecimal(digest)

    def partial(self, digest: str) -> Path:
        return self.partials / hexadecimal(digest)

    def fresh_blob(self, digest: str) -> Path:
        """A new name for a compressed stream that is whole; it tells the digest."""
        return self.fresh(f".{hexadecimal(digest)}")

    def digest_of_fresh(self, blob: Path) -> str:
        return f"sha256:{blob.suffix[1:]}"

    def lent_file(self, container_id: ContainerId) -> Path:
        return self.lent / container_id

    def fresh(self, suffix: str) -> Path:
        """A new name in `temporary`, that tells which process is at it."""
        return self.temporary / f"{os.getpid()}-{secrets.token_hex(8)}{suffix}"

    def of_process(self, pid: int) -> Iterator[Path]:
        """What a process has in `temporary`."""
        return self.temporary.glob(f"{pid}-*")
