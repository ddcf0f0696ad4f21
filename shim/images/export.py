"""An image as an OCI archive (image-spec, image-layout.md, in a tar), as a stream.

One that has a tag is a docker-archive as well, by a manifest.json that names the same blobs: `docker load`
reads it, as it reads what its own `docker save` writes since version 25.

Its configuration is the stored one to the byte, so its id and diff ids are the same wherever it is read.
Where the compressed layers are kept the manifest is the registry's too; else the layers are plain tars, and
the manifest is made here. What a layer holds is hashed once more while it leaves: a damaged one ends the
stream with an error.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oci.errors import Absent, Internal
from oci.manifest import Manifest
from oci.workload import ImageId
from shim.images.archive import blob_name
from shim.images.documents import read_document
from shim.images.holdings import Holdings
from shim.images.intake import Intake
from shim.images.layers import EROFS
from shim.images.layout import Layout
from shim.images.obtaining import Obtaining
from shim.images.receive import Received
from shim.images.resolving import sha256
from shim.images.threads import Threads
from shim.records import ImageRecord

BLOCK: Final = 1 << 20
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_NAME: Final = "io.containerd.image.name"
_ADVICE: Final = "`crisp fsck --fix` gets it again"
_REF: Final = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blob:
    """A file of the archive: bytes that are at hand, or a file whose digest is checked on its way."""

    digest: str
    content: bytes = b""
    path: Path | None = None
    size: int = 0


class Export:
    """Belongs to the event loop of one store."""

    def __init__(self, holdings: Holdings, threads: Threads, intake: Intake, obtaining: Obtaining) -> None:
        self._holdings = holdings
        self._threads = threads
        self._intake = intake
        self._obtaining = obtaining

    async def run(self, image: ImageRecord) -> AsyncGenerator[bytes, None]:
        """The archive's bytes. Raises Absent (removed meanwhile), Internal (damaged: `crisp fsck --fix`).

        In the directory form the tars are not there: layers come from their kept streams or the registry.
        """
        diff_ids = image.config.diff_ids
        gotten: list[Received] = []
        with self._intake.wanting(image.layers):
            if ImageId(image.id) not in self._holdings.images:
                raise Absent(f"image {image.id} is not in the store: it was removed")
            try:
                home = self._holdings.home_of(image.id)
                config = await self._document(home, image.id)
                body = await self._document(home, image.manifest_digest) if image.manifest_digest else b""
                manifest = await self._obtaining.manifest(image)
                blobs = await self._as_it_came(image, manifest)
                if blobs and manifest is not None:
                    kind = manifest.media_type or _MANIFEST
                else:
                    blobs = [await self._tar(diff_id, gotten) for diff_id in diff_ids]
                    body, kind = _manifest(image, config, blobs), _MANIFEST
                files = {blob.digest: blob for blob in (_bytes(body), _bytes(config), *blobs)}
                heads = _heads(image, kind, body, [blob.digest for blob in blobs])
                async for block in self._archive(heads, list(files.values())):
                    yield block
            finally:
                for received in gotten:
                    await self._threads.do(received.discard)

    async def _document(self, home: Layout, digest: str) -> bytes:
        """A document of the image, as it came. Raises Internal for a damaged one."""
        body = await self._threads.do(read_document, home, digest)
        if (found := sha256(body)) != digest:
            raise Internal(f"{home.document(digest)}: its digest is {found}: {_ADVICE}")
        return body

    async def _as_it_came(self, image: ImageRecord, manifest: Manifest | None) -> list[_Blob]:
        """The compressed layers, if every one of them is kept."""
        if manifest is None:
            return []
        blobs = []
        for diff_id, blob in zip(image.config.diff_ids, manifest.layers, strict=True):
            kept = self._holdings.kept(diff_id)
            path = kept.layout.blob(diff_id)
            if kept.record.blob != blob.digest or not await self._threads.do(path.exists):
                return []
            blobs.append(_Blob(digest=blob.digest, path=path, size=blob.size))
        return blobs

    async def _tar(self, diff_id: str, gotten: list[Received]) -> _Blob:
        kept = self._holdings.kept(diff_id)
        if kept.record.form == EROFS:
            path = kept.layout.tar(diff_id)
        else:
            received = await self._obtaining.again(kept.record)
            gotten.append(received)
            path = received.tar
        try:
            size = (await self._threads.do(path.stat)).st_size
        except OSError as failure:
            raise Internal(
                f"{path}: {failure.strerror}: `crisp fsck --fix` gets the layer again"
            ) from failure
        return _Blob(digest=diff_id, path=path, size=size)

    async def _archive(self, heads: bytes, blobs: list[_Blob]) -> AsyncGenerator[bytes, None]:
        yield heads
        for blob in blobs:
            yield _header(blob_name(blob.digest), blob.size or len(blob.content))
            if blob.path is None:
                yield _padded(blob.content)
                continue
            reading = _read(blob)
            while block := await self._threads.do(next, reading, b""):
                yield block
        yield bytes(tarfile.RECORDSIZE)


def _read(blob: _Blob) -> Iterator[bytes]:
    """The content, padded; at its end the digest must be right. Blocking."""
    assert blob.path is not None
    digest, size = hashlib.sha256(), 0
    try:
        with blob.path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size += len(block)
                yield block
    except OSError as failure:
        raise Internal(f"{blob.path}: {failure.strerror}: {_ADVICE}") from failure
    found = f"sha256:{digest.hexdigest()}"
    if found != blob.digest or size != blob.size:
        raise Internal(
            f"{blob.path}: its digest is {found}, not {blob.digest}: `crisp fsck --fix` gets it again"
        )
    if size % tarfile.BLOCKSIZE:
        yield bytes(-size % tarfile.BLOCKSIZE)


def _bytes(content: bytes) -> _Blob:
    return _Blob(digest=sha256(content), content=content)


def _manifest(image: ImageRecord, config: bytes, layers: list[_Blob]) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": image.id, "size": len(config)},
        "layers": [{"mediaType": _LAYER, "digest": blob.digest, "size": blob.size} for blob in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def _index(image: ImageRecord, kind: str, manifest: bytes) -> bytes:
    described = {"mediaType": kind, "digest": sha256(manifest), "size": len(manifest)}
    entries = [
        {**described, "annotations": {_NAME: tag, _REF: tag.rpartition(":")[2]}} for tag in image.tags
    ] or [described]
    return json.dumps({"schemaVersion": 2, "manifests": entries}, separators=(",", ":")).encode("ascii")


def _heads(image: ImageRecord, kind: str, manifest: bytes, layers: list[str]) -> bytes:
    """The files that say what the archive holds; `layers` are the digests of its blobs, base first."""
    heads = _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    heads += _file("index.json", _index(image, kind, manifest))
    if image.tags:
        docker = {
            "Config": blob_name(image.id),
            "RepoTags": image.tags,
            "Layers": [blob_name(digest) for digest in layers],
        }
        heads += _file("manifest.json", json.dumps([docker], separators=(",", ":")).encode("ascii"))
    return heads


def _file(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + _padded(content)


def _header(name: str, size: int) -> bytes:
    """Nothing of this moment or machine is in it: the same image gives the same archive."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)
