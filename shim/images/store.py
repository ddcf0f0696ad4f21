"""The image store: images by every name they have, pulled, imported, removed, and lent to containers.

This is the door of `shim/images/`; the other modules of the folder are its rooms. It keeps layers and
documents below its directory and records in the state store; it knows nothing about pods or runtimes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oci.errors import Absent, Unsupported
from oci.registry_auth import Credentials
from oci.workload import ContainerId, ImageId
from shim.images.progress import PullMeter, PullProgress
from shim.images.settings import StoreSettings
from shim.records import ImageRecord, LayerRecord
from shim.rootfs import Rootfs


class Records(Protocol):
    """What the store needs of the state store."""

    @property
    def images(self) -> Mapping[ImageId, ImageRecord]: ...

    @property
    def layers(self) -> Mapping[str, LayerRecord]: ...

    async def put(self, record: ImageRecord | LayerRecord, /) -> None: ...

    async def delete(self, record: ImageRecord | LayerRecord, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemUsage:
    """Use of one file system, as CRI's FilesystemUsage wants it."""

    mountpoint: Path  # an existing directory
    used_bytes: int
    inodes_used: int
    timestamp: int  # ns since the Unix epoch


class ImageStore:
    """All images of a node. Every method belongs to the event loop; blocking work is done in its threads."""

    def __init__(self, directory: Path, *, records: Records, settings: StoreSettings) -> None:
        self.directory = directory
        self._records = records
        self._settings = settings
        self._meters: list[PullMeter] = []

    async def recover(self, containers: Iterable[ContainerId]) -> None:
        """At start, before anything else: make the directory, drop what was half done, count what is lent.

        `containers` are all that exist by their records; what was lent to any other is taken back.
        """
        raise Unsupported("image store: recover is not built yet")

    async def close(self) -> None:
        """Stop pulls and threads. Mounts stay, containers use them."""

    def all(self) -> tuple[ImageRecord, ...]:
        """Every image, dangling ones too."""
        return tuple(self._records.images.values())

    def find(self, name: str) -> ImageRecord | None:
        """The image of a name in any form of section 12.0: reference, id, bare hex, unique prefix of an id.

        None when there is none. Raises BadInput for an empty name or an ambiguous prefix.
        """
        return self._records.images.get(ImageId(name))

    def require(self, name: str) -> ImageRecord:
        """As `find`, but raises Absent."""
        record = self.find(name)
        if record is None:
            raise Absent(f"image {name[:200]!r} is not in the store: pull it first")
        return record

    async def pull(
        self,
        reference: str,
        credentials: Credentials | None = None,
        *,
        annotations: Mapping[str, str] | None = None,
    ) -> ImageRecord:
        """Fetch an image and make it ready. Equal pulls are one; the last caller that leaves ends it.

        Raises BadInput (reference, platform, limits, credentials refused), Absent (no such image at the
        registry), Busy (token RegistryUnavailable), Full (path), Deadline, Internal.
        """
        raise Unsupported("image store: pull is not built yet")

    def progress(self) -> tuple[PullProgress, ...]:
        """Running pulls, oldest first."""
        return tuple(meter.snapshot() for meter in self._meters)

    async def explain(self, reference: str, credentials: Credentials | None = None) -> tuple[str, ...]:
        """Who would be asked for `reference`, in what order, with which credentials, and where that is said."""
        raise Unsupported("image store: explain is not built yet")

    async def remove(self, name: str) -> None:
        """Remove the whole image that `name` names, all tags with it; absent is success.

        What containers use stays on disk until the last of them is gone.
        """
        raise Unsupported("image store: remove is not built yet")

    async def import_archive(self, path: Path, *, names: Sequence[str] = ()) -> list[ImageRecord]:
        """Read an OCI layout or docker-archive: a tar, a gzip or zstd of one, or a directory.

        `names` replace the names of the archive (which then must hold one image). Raises BadInput, Full.
        """
        raise Unsupported("image store: import is not built yet")

    async def acquire_rootfs(self, container_id: ContainerId, image_id: ImageId, directory: Path) -> Rootfs:
        """Lend the image's layers to a container, with a writable layer in `directory` (upper, work).

        Repeatable with equal arguments. Raises Absent (no such image), Internal (mount), Full.
        """
        raise Unsupported("image store: acquire_rootfs is not built yet")

    async def release_rootfs(self, container_id: ContainerId) -> None:
        """Take back what was lent; nothing lent is success. The caller removes the writable layer."""
        raise Unsupported("image store: release_rootfs is not built yet")

    def in_use(self, image_id: ImageId) -> bool:
        """Whether a container holds the image's layers."""
        return False

    async def document(self, image_id: ImageId) -> bytes:
        """The image configuration as the registry sent it (JSON). Raises Absent."""
        raise Unsupported("image store: document is not built yet")

    async def filesystem_usage(self) -> FilesystemUsage:
        """What images take, from the records: no walk, works on an empty store."""
        raise Unsupported("image store: filesystem_usage is not built yet")

    async def usage_of(self, directory: Path) -> FilesystemUsage:
        """What a directory takes (a container's `upper`), walked in a thread; absent is zero."""
        raise Unsupported("image store: usage_of is not built yet")
