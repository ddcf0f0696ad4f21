"""containerd's metadata.db: which images it has, under which names. Pure.

The layout is containerd's own (core/metadata/buckets.go there): in v1/NAMESPACE/images/NAME/target stand
digest, mediatype and size.
"""

from __future__ import annotations

from dataclasses import dataclass

from oci.bolt import Bucket, Database
from oci.errors import BadInput
from oci.reference import is_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """A name in a namespace, and the manifest or index that it means."""

    namespace: str
    name: str
    digest: str
    media_type: str
    size: int


def stored_images(data: bytes, *, what: str) -> tuple[StoredImage, ...]:
    """Every image of every namespace, sorted. Raises BadInput (no such database, damage)."""
    version = Database(data, what=what).root.bucket(b"v1")
    if version is None:
        raise BadInput(f"{what}: a bbolt database, but not containerd's (no bucket v1)")
    found = []
    for namespace, bucket in version.buckets():
        images = bucket.bucket(b"images")
        for name, image in () if images is None else images.buckets():
            found.append(_image(namespace, name, image, what))
    return tuple(sorted(found, key=lambda image: (image.namespace, image.name)))


def _image(namespace: bytes, name: bytes, image: Bucket, what: str) -> StoredImage:
    shown = name.decode("utf-8", "backslashreplace")
    target = image.bucket(b"target")
    values = {} if target is None else dict(target.values())
    digest = values.get(b"digest", b"").decode("ascii", "replace")
    size = _varint(values.get(b"size", b""))
    if not is_digest(digest) or size is None:
        raise BadInput(f"{what}: image {shown!r} has no digest or no size")
    return StoredImage(
        namespace=namespace.decode("utf-8", "backslashreplace"),
        name=shown,
        digest=digest,
        media_type=values.get(b"mediatype", b"").decode("ascii", "replace"),
        size=size,
    )


def _varint(data: bytes) -> int | None:
    """Go's signed varint, None for anything else."""
    value = 0
    for place, byte in enumerate(data[:10]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)
    return None
