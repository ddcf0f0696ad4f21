"""What of the store nobody needs: said, and removed if that is wanted. Belongs to the event loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oci.trust.policy import DOCKER
from oci.workload import ImageId
from shim.images.intake import Intake
from shim.images.keeping import Keeping
from shim.images.lending import Lending
from shim.images.persistence import Records
from shim.records import ImageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """`bytes` is what goes from the disk with it: layers that others share stay, and do not count."""

    what: str  # the image by name or id, or the beginning of a download by its digest
    bytes: int


class Pruning:
    """`everything` takes images with a name too; else only such as lost theirs to a newer one.

    A digest is a name where it was pulled by; each pull by tag brings one that nobody asked for.
    """

    def __init__(self, records: Records, intake: Intake, keeping: Keeping, lending: Lending) -> None:
        self._records = records
        self._intake = intake
        self._keeping = keeping
        self._lending = lending

    async def run(self, *, everything: bool, dry: bool) -> list[Pruned]:
        """What went, or would go. Pinned images stay, and those that a container holds."""
        pruned = []
        gone: set[ImageId] = set()
        for image in sorted(self._records.images.values(), key=lambda image: image.created_at):
            if image.pinned or self._lending.holds(image.id) or (_named(image) and not everything):
                continue
            gone.add(image.id)
            freed = self._freed(image, gone)
            if not dry and not await self._keeping.remove(self._unless_taken(image)):
                gone.remove(image.id)
                continue
            pruned.append(Pruned(what=(image.tags or image.digests or (image.id,))[0], bytes=freed))
        for name, size in (await self._intake.remove_partials(older=0, dry=dry)).items():
            pruned.append(Pruned(what=f"download of sha256:{name}", bytes=size))
        return pruned

    def _unless_taken(self, image: ImageRecord) -> Callable[[], ImageRecord | None]:
        """A container or a name may have come since it was looked at."""

        def find() -> ImageRecord | None:
            now = self._records.images.get(image.id)
            return None if now != image or self._lending.holds(image.id) else now

        return find

    def _freed(self, image: ImageRecord, gone: set[ImageId]) -> int:
        """Bytes of the layers that no image but those that go has."""
        others = (other for other in self._records.images.values() if other.id not in gone)
        stay = {diff_id for other in others for diff_id in other.layers}
        stay.update(self._lending.layers())
        earlier = (self._records.images.get(image_id) for image_id in gone - {image.id})
        counted = {diff_id for other in earlier if other is not None for diff_id in other.layers}
        layers = {diff_id for diff_id in image.layers if diff_id not in stay and diff_id not in counted}
        records = [self._records.layers[diff_id] for diff_id in layers if diff_id in self._records.layers]
        return sum(record.size + record.blob_size for record in records)


def _named(image: ImageRecord) -> bool:
    asked = {one.name for one in image.admissions if one.source == DOCKER}
    return bool(image.tags) or not asked.isdisjoint(image.digests)
