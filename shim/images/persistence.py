"""What the image store needs of the state store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from oci.workload import ImageId
from shim.records import ImageRecord, LayerRecord


class Records(Protocol):
    """Records read from memory and written durably; a change is visible when the call returns."""

    @property
    def images(self) -> Mapping[ImageId, ImageRecord]: ...

    @property
    def layers(self) -> Mapping[str, LayerRecord]: ...

    async def put(self, *records: ImageRecord | LayerRecord) -> None: ...  # in one commit

    async def delete(self, record: ImageRecord | LayerRecord, /) -> None: ...
