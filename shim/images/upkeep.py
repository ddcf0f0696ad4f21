"""What the node's people do with the store as a whole: check and repair, clear up, carry images away."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from shim.images.export import Export
from shim.images.fsck import Fsck, Progress
from shim.images.keeping import Keeping
from shim.images.pruning import Pruned, Pruning
from shim.records import ImageRecord


class Upkeep:
    """Belongs to the event loop of one store."""

    def __init__(
        self,
        *,
        fsck: Fsck,
        pruning: Pruning,
        export: Export,
        keeping: Keeping,
        require: Callable[[str], ImageRecord],
    ) -> None:
        self._fsck = fsck
        self._pruning = pruning
        self._export = export
        self._keeping = keeping
        self._require = require

    async def fsck(self, *, fix: bool) -> AsyncGenerator[Progress, None]:
        """Every layer's digest, every document, and what lies about; `fix` repairs and removes."""
        try:
            async with aclosing(self._fsck.run(fix=fix)) as pictures:
                async for progress in pictures:
                    yield progress
        finally:
            await self._keeping.collect()  # what was removed while it was read

    async def prune(self, *, everything: bool, dry: bool) -> list[Pruned]:
        """Remove images that nobody uses and downloads that nobody goes on with; `dry` only says so."""
        return await self._pruning.run(everything=everything, dry=dry)

    def export(self, name: str) -> AsyncGenerator[bytes, None]:
        """The image as an OCI archive. Raises Absent, BadInput (name), Internal (damaged)."""
        return self._exported(self._require(name))

    async def _exported(self, image: ImageRecord) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._export.run(image)) as blocks:
                async for block in blocks:
                    yield block
        finally:
            await self._keeping.collect()  # the image may have been removed while it was read
