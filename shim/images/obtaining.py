"""A stored layer gotten once more, verified: from the stream that is kept of it, else from its registry."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from oci.errors import Absent, CrispError
from oci.manifest import Descriptor, Manifest, Platform, parse_document
from oci.registries.endpoint import Endpoint
from shim.images.asking import Asker, Asking
from shim.images.cancellation import Cancellation
from shim.images.documents import read_document
from shim.images.fetching import ArchiveLayer, Job, RegistryLayer
from shim.images.holdings import Holdings
from shim.images.intake import Intake
from shim.images.layout import Layout
from shim.images.persistence import Records
from shim.images.progress import LayerMeter
from shim.images.receive import Expected, Received
from shim.images.resolving import Resolved, resolve_image
from shim.images.routes import Route
from shim.images.settings import StoreSettings
from shim.images.sources import Place
from shim.images.threads import Threads
from shim.records import ImageRecord, LayerRecord


class Obtaining:
    """Belongs to the event loop of one store."""

    def __init__(
        self,
        layout: Layout,
        records: Records,
        settings: StoreSettings,
        threads: Threads,
        intake: Intake,
        asking: Asking,
        node: Platform,
        holdings: Holdings,
    ) -> None:
        self._layout = layout
        self._records = records
        self._settings = settings
        self._threads = threads
        self._intake = intake
        self._asking = asking
        self._node = node
        self._holdings = holdings

    async def from_tar(self, record: LayerRecord) -> Received:
        """The layer with its index made anew from its own tar."""
        return await self._intake.receive(
            await self._local(record, self._layout.tar(record.diff_id), Expected(diff_id=record.diff_id)),
            LayerMeter(record.diff_id, 0),
        )

    async def again(self, record: LayerRecord) -> Received:
        """The layer from where it can be had. Raises what the last place said, Absent where there is none.

        Registries are asked as the node itself: credentials of a pod's pull are never kept.
        """
        failures: list[CrispError] = []
        for job in await self._jobs(record, failures):
            try:
                return await self._intake.receive(job, LayerMeter(record.diff_id, 0))
            except CrispError as failure:
                failures.append(failure)
        if failures:
            raise failures[-1]
        raise Absent(f"layer {record.diff_id} came from an archive, which is not kept: import it again")

    async def _jobs(self, record: LayerRecord, failures: list[CrispError]) -> list[Job]:
        jobs: list[Job] = []
        if record.blob:
            expected = Expected(diff_id=record.diff_id, digest=record.blob)
            blob_file = self._holdings.layout_of(record.diff_id).blob(record.diff_id)
            jobs.append(await self._local(record, blob_file, expected))
        for image in self.images_of(record.diff_id):
            try:
                blob = await self.blob_of(image, record.diff_id)
                route = None if blob is None else await self._route(image)
                if blob is None or route is None:
                    continue
                found = await self._ask(route)
            except CrispError as failure:
                failures.append(failure)
                continue
            jobs.append(self._remote(record, blob, route, found.endpoint))
        return jobs

    def images_of(self, diff_id: str) -> list[ImageRecord]:
        return [image for image in self._holdings.images.values() if diff_id in image.layers]

    async def manifest(self, image: ImageRecord) -> Manifest | None:
        """The manifest that the image came with; None for one of a docker-archive. Raises Internal."""
        if not image.manifest_digest:
            return None
        home = self._holdings.home_of(image.id)
        body = await self._threads.do(read_document, home, image.manifest_digest)
        parsed = parse_document(body, what=f"manifest {image.manifest_digest}")
        return parsed if isinstance(parsed, Manifest) else None

    async def blob_of(self, image: ImageRecord, diff_id: str) -> Descriptor | None:
        """What the registry calls the layer."""
        manifest = await self.manifest(image)
        if manifest is None:
            return None
        named: Mapping[str, Descriptor] = dict(zip(image.config.diff_ids, manifest.layers, strict=True))
        return named.get(diff_id)

    async def _route(self, image: ImageRecord) -> Route | None:
        for name in (*image.digests, *image.tags):  # a tag may have moved since
            for plan in await self._asking.plans(name, Asker()):
                return await self._asking.route(plan)
        return None

    async def _ask(self, route: Route) -> Resolved:
        cancellation, limits = Cancellation(), self._settings.limits
        return await self._threads.run(
            cancellation, lambda: resolve_image(route, self._node, limits=limits, cancellation=cancellation)
        )

    def _remote(
        self, record: LayerRecord, blob: Descriptor, route: Route, first: Endpoint | None
    ) -> RegistryLayer:
        return RegistryLayer(
            pull=secrets.token_hex(8),
            ways=route.ways,
            reference=route.reference,
            first=first,
            blob=blob,
            diff_id=record.diff_id,
            layout=self._layout,
            settings=self._settings,
            what=f"layer {record.diff_id} of {route.reference}",
        )

    async def _local(self, record: LayerRecord, path: Path, expected: Expected) -> ArchiveLayer:
        try:
            size = (await self._threads.do(path.stat)).st_size
        except OSError:
            size = 0
        return ArchiveLayer(
            place=Place(path=path, size=size),
            expected=expected,
            layout=self._layout,
            limits=self._settings.limits,
            archive=f"layer {record.diff_id}",
            name=str(path),
        )

    async def documents(self, image: ImageRecord) -> dict[str, bytes]:
        """Configuration and manifest of an image, by digest, from its registry.

        Raises what that says, Absent when it has another image by now or there is none to ask.
        """
        route = await self._route(image)
        if route is None or not image.manifest_digest:
            raise Absent(f"image {image.id} came from an archive, which is not kept: import it again")
        found = await self._ask(route)
        if found.image_id != image.id:
            raise Absent(f"image {image.id}: {route.reference} is another image by now")
        return found.documents
