"""Everything that can run here: what is ours, and what additional stores hold beside it.

What counts, collects, prunes or repairs goes by the store's own records instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from oci.errors import Absent
from oci.workload import ImageId
from shim.images.additional import AdditionalStores, Kept
from shim.images.catalogue import together
from shim.images.layout import Layout
from shim.images.persistence import Records
from shim.records import ImageRecord


class Holdings:
    """Ours comes first. Without additional stores it is just that."""

    def __init__(self, layout: Layout, records: Records, additional: AdditionalStores) -> None:
        self._layout = layout
        self._records = records
        self._additional = additional
        self._shown: tuple[object, dict[ImageId, ImageRecord]] | None = None

    def kept(self, diff_id: str) -> Kept:
        """Raises Absent for a layer that nobody has."""
        if (record := self._records.layers.get(diff_id)) is not None:
            return Kept(record=record, layout=self._layout)
        if (found := self._additional.kept(diff_id)) is not None:
            return found
        raise Absent(f"layer {diff_id} is not in the store: pull the image again")

    def layout_of(self, diff_id: str) -> Layout:
        """Where the layer's files are, or would be."""
        try:
            return self.kept(diff_id).layout
        except Absent:
            return self._layout

    def whole(self, image: ImageRecord) -> bool:
        """Whether every layer of it is somewhere: an additional store may have gone."""
        ours = self._records.layers
        return all(layer in ours or self._additional.kept(layer) for layer in image.layers)

    @property
    def images(self) -> Mapping[ImageId, ImageRecord]:
        """A tag is at one image. Ours are left out while a layer of theirs is nowhere: a pull brings it."""
        stores, ours = self._additional.stores, self._records.images
        if not stores:
            return ours
        made_of = (stores, tuple(ours.values()))  # the same objects until something changes
        if self._shown is None or self._shown[0] != made_of:
            self._shown = (made_of, self._together())
        return self._shown[1]

    def _together(self) -> dict[ImageId, ImageRecord]:
        found = {image.id: image for image in self._records.images.values() if self.whole(image)}
        taken = {tag for image in found.values() for tag in image.tags}
        for store in self._additional.stores:
            for image in store.images.values():
                free = replace(image, tags=tuple(tag for tag in image.tags if tag not in taken))
                taken.update(free.tags)
                ours = found.get(image.id)
                found[image.id] = free if ours is None else together(free, ours)
        return found

    def home_of(self, image_id: ImageId) -> Layout:
        """The store that has the image's documents."""
        if image_id not in self._records.images:
            for store in self._additional.stores:
                if image_id in store.images:
                    return store.layout
        return self._layout
