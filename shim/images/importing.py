"""Images that come from this machine: archives, and the stores of other runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oci.errors import BadInput, CrispError
from oci.manifest import Platform
from oci.reference import Reference, parse
from shim.images import containerd_store, docker_store
from shim.images.archive import ArchiveImage, images_in, wanted_layers
from shim.images.cancellation import Cancellation
from shim.images.foreign import Offer, Taken, chosen, tags_of
from shim.images.keeping import Keeping, Names
from shim.images.layout import Layout
from shim.images.settings import StoreSettings
from shim.images.sources import DirectorySource, Source, open_source
from shim.images.threads import Threads
from shim.images.trust.gate import Gate
from shim.records import ImageRecord

CONTAINERD, DOCKER = "containerd", "docker"


class Importing:
    """Belongs to the event loop."""

    def __init__(
        self,
        layout: Layout,
        settings: StoreSettings,
        threads: Threads,
        keeping: Keeping,
        gate: Gate,
        node: Platform,
    ) -> None:
        self._layout = layout
        self._limits = settings.limits
        self._threads = threads
        self._keeping = keeping
        self._gate = gate
        self._node = node

    async def archive(self, path: Path, names: Sequence[str]) -> list[ImageRecord]:
        """As `ImageStore.import_archive`."""
        what = f"archive {path}"
        wanted = tuple(parse(name) for name in names)
        cancellation = Cancellation()
        limit = self._limits.image
        source = await self._threads.run(
            cancellation,
            lambda: open_source(path, self._layout, limit=limit, cancellation=cancellation, what=what),
            discard=lambda late: late.close(),
        )
        try:
            found = await self._threads.run(
                cancellation, lambda: images_in(source, self._node, limits=self._limits, what=what)
            )
            if wanted and len(found) > 1:
                raise BadInput(f"{what}: names are given, but it holds {len(found)} images")
            return [await self._one(path, source, image, wanted or image.names, what) for image in found]
        finally:
            await self._threads.do(source.close)

    async def _one(
        self, path: Path, source: Source, image: ArchiveImage, names: Sequence[Reference], what: str
    ) -> ImageRecord:
        wanted = wanted_layers(source, image, self._layout, self._limits, what=what)
        tags = tuple(name.canonical for name in names if not name.digest)
        digests = tuple(f"{name.name}@{image.resolved.name_digest}" for name in names if image.digested)
        given = Names(tags, tuple(dict.fromkeys(digests)))
        admission = await self._gate.admit_archive(image.transport, path, what)
        return await self._keeping.take_in(image.resolved, wanted, given, admission, {}, None, what)

    async def store(self, kind: str, root: Path, images: Sequence[str], *, dry_run: bool) -> list[Taken]:
        """As `ImageStore.import_store`."""
        if kind == CONTAINERD:
            what = f"containerd's store {root}"
            source = await self._threads.do(containerd_store.open_content, root, what)
            try:
                offers = await self._containerd(root, source, what)
                return await self._take("oci", root, chosen(offers, images, what), what, dry_run=dry_run)
            finally:
                await self._threads.do(source.close)
        if kind != DOCKER:
            raise BadInput(f"kind: {kind[:60]!r} is neither {CONTAINERD} nor {DOCKER}")
        what = f"Docker's store {root}"
        offers = await self._threads.run(
            Cancellation(),
            lambda: docker_store.offers(root, self._layout, self._node, limits=self._limits, what=what),
        )
        return await self._take("docker-daemon", root, chosen(offers, images, what), what, dry_run=dry_run)

    async def _containerd(self, root: Path, source: DirectorySource, what: str) -> list[Offer]:
        return await self._threads.run(
            Cancellation(),
            lambda: containerd_store.offers(
                root, source, self._layout, self._node, limits=self._limits, what=what
            ),
        )

    async def _take(
        self, transport: str, root: Path, offers: Sequence[Offer], what: str, *, dry_run: bool
    ) -> list[Taken]:
        """One that fails keeps none of the others."""
        taken = []
        for offer in offers:
            found = Taken(names=offer.names, digest=offer.digest, size=offer.size, problem=offer.problem)
            if offer.whole is not None and not dry_run:
                whole = offer.whole
                given = Names(tags_of(offer.names), whole.digests)
                try:
                    admission = await self._gate.admit_archive(transport, root, what)
                    record = await self._keeping.take_in(
                        whole.resolved, whole.wanted, given, admission, {}, None, what
                    )
                    found = Taken(
                        names=(*record.tags, *record.digests),
                        digest=offer.digest,
                        size=record.size,
                        image_id=record.id,
                    )
                except CrispError as failure:
                    found = Taken(
                        names=offer.names, digest=offer.digest, size=offer.size, problem=str(failure)
                    )
            taken.append(found)
        return taken
