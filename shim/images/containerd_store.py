"""Images of containerd's content store, as they lie below its root directory. Blocking, for threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from oci.containerd_metadata import StoredImage, stored_images
from oci.errors import BadInput
from oci.manifest import Descriptor, Platform
from shim.images.archive import layout_image, wanted_layers
from shim.images.foreign import Offer, Whole, digests_of, read_small, tags_of
from shim.images.layout import Layout
from shim.images.settings import Limits
from shim.images.sources import DirectorySource

CONTENT = "io.containerd.content.v1.content"
METADATA = "io.containerd.metadata.v1.bolt/meta.db"
_MOST_METADATA = 1 << 30


def open_content(root: Path, what: str) -> DirectorySource:
    """The blobs, which `offers` and the layers' jobs read; the caller closes it. Raises BadInput."""
    try:
        return DirectorySource(root / CONTENT)
    except OSError as failure:
        raise BadInput(f"{what}: {root / CONTENT}: {(failure.strerror or '').lower()}") from failure


def offers(
    root: Path, source: DirectorySource, layout: Layout, node: Platform, *, limits: Limits, what: str
) -> list[Offer]:
    """Every image of every namespace, each once with all its names. Raises BadInput."""
    body = read_small(root / METADATA, _MOST_METADATA, what)
    by_digest: dict[str, list[StoredImage]] = {}
    for image in stored_images(body, what=f"{what}: {root / METADATA}"):
        by_digest.setdefault(image.digest, []).append(image)
    return [_offer(images, source, layout, node, limits, what) for images in by_digest.values()]


def _offer(
    images: list[StoredImage],
    source: DirectorySource,
    layout: Layout,
    node: Platform,
    limits: Limits,
    what: str,
) -> Offer:
    names = tuple(dict.fromkeys(image.name for image in images))
    first = images[0]
    entry = Descriptor(media_type=first.media_type, digest=first.digest, size=first.size)
    try:
        image = layout_image(source, entry, (), node, limits=limits, what=f"{what}: {names[0][:200]}")
    except BadInput as failure:
        return Offer(names=names, digest=first.digest, size=0, problem=failure.message)
    size = sum(layer.size for layer in image.resolved.manifest.layers)
    missing = list(_missing(source, image.blobs))
    if missing:
        return Offer(
            names=names,
            digest=first.digest,
            size=size,
            problem=f"{what}: {names[0][:200]}: {len(missing)} of {len(image.blobs)} layers are not in the "
            f"content store ({missing[0]}); containerd drops them with discard_unpacked_layers",
        )
    pulled = {name.rpartition("@")[0] for name in digests_of(names)}
    tagged = {tag.rpartition(":")[0] for tag in tags_of(names)}
    whole = Whole(
        resolved=image.resolved,
        wanted=tuple(wanted_layers(source, image, layout, limits, what=what)),
        digests=tuple(f"{name}@{first.digest}" for name in sorted(pulled | tagged)),
    )
    return Offer(names=names, digest=first.digest, size=size, whole=whole)


def _missing(source: DirectorySource, blobs: tuple[str, ...]) -> Iterator[str]:
    for name in blobs:
        content = source.open(name)
        if content is None:
            yield name
        else:
            content.close()
