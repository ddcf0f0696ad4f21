"""What images an archive holds: OCI layouts and docker-archives. Blocking, for threads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from oci.errors import BadInput
from oci.image import parse_config
from oci.manifest import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    check_platform,
    is_attestation,
    normalise,
    parse_document,
    runnable,
)
from oci.reference import Reference, parse
from oci.workload import ImageId
from shim.images.fetching import ArchiveLayer
from shim.images.intake import Wanted
from shim.images.layout import Layout
from shim.images.receive import Expected
from shim.images.resolving import Resolved, read_image, sha256
from shim.images.session import Document
from shim.images.settings import Limits
from shim.images.sources import BLOCK, DirectorySource, Source

_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_CONTAINERD_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveImage:
    """One image of an archive. `names` may be empty; `blobs` names each layer's file, base first."""

    resolved: Resolved
    names: tuple[Reference, ...]
    blobs: tuple[str, ...]
    digested: bool  # its digests are those of a registry, not made up here
    transport: str  # what policies call such an archive


def images_in(source: Source, node: Platform, *, limits: Limits, what: str) -> list[ArchiveImage]:
    """The archive's images for `node`; entries of one image are one. Raises BadInput."""
    docker = _json(source, "manifest.json", limits, what)
    index = _json(source, "index.json", limits, what)
    found: list[ArchiveImage] = []
    if index is not None:
        found = _layout(source, index[1], node, limits, what)
    if docker is not None and not any(image.names for image in found):
        found = [_docker_image(source, entry, node, limits, what) for entry in _entries(docker[0], what)]
    if index is None and docker is None:
        raise BadInput(f"{what}: neither an OCI layout (index.json) nor a docker-archive (manifest.json)")
    if not found:
        raise BadInput(f"{what}: the archive holds no image")
    merged: dict[str, ArchiveImage] = {}
    for image in found:
        known = merged.get(image.resolved.image_id)
        names = tuple(dict.fromkeys((*(known.names if known else ()), *image.names)))
        merged[image.resolved.image_id] = replace(known or image, names=names)
    return list(merged.values())


def wanted_layers(
    source: Source, image: ArchiveImage, layout: Layout, limits: Limits, *, what: str
) -> list[Wanted]:
    """How to get each layer of an image out of the archive."""
    return [
        _wanted(source, name, diff_id, blob, layout, limits, digested=image.digested, what=what)
        for name, diff_id, blob in zip(
            image.blobs, image.resolved.config.diff_ids, image.resolved.manifest.layers, strict=True
        )
    ]


def _wanted(
    source: Source,
    name: str,
    diff_id: str,
    blob: Descriptor,
    layout: Layout,
    limits: Limits,
    *,
    digested: bool,
    what: str,
) -> Wanted:
    job = ArchiveLayer(
        place=source.place(name),
        expected=Expected(
            diff_id=diff_id, digest=blob.digest if digested else "", size=blob.size if digested else -1
        ),
        layout=layout,
        limits=limits,
        archive=what,
        name=name,
    )
    return Wanted(diff_id=diff_id, blob=blob, job=job)


def _read(source: Source, name: str, limit: int, what: str) -> bytes | None:
    content = source.open(name)
    if content is None:
        return None
    try:
        if content.size > limit:
            raise BadInput(f"{what}: {name[:200]} has {content.size} bytes, the limit is {limit}")
        parts = []
        while part := content.read(BLOCK):
            parts.append(part)
        return b"".join(parts)
    finally:
        content.close()


def _json(source: Source, name: str, limits: Limits, what: str) -> tuple[Any, bytes] | None:
    body = _read(source, name, limits.manifest, what)
    if body is None:
        return None
    try:
        return json.loads(body), body
    except (ValueError, RecursionError) as failure:
        raise BadInput(f"{what}: {name} is not JSON") from failure


def blob_name(digest: str) -> str:
    """Where an OCI layout, and containerd, keep a blob."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _layout(source: Source, body: bytes, node: Platform, limits: Limits, what: str) -> list[ArchiveImage]:
    index = parse_document(body, what=f"{what}: index.json")
    if not isinstance(index, Index):
        raise BadInput(f"{what}: index.json is not an image index")

    order = runnable(node)
    found = []
    passed: list[str] = []
    for entry in index.manifests:
        if is_attestation(entry):
            continue
        if entry.platform is not None and entry.platform.architecture and entry.platform not in order:
            passed.append(str(entry.platform))
            continue
        found.append(layout_image(source, entry, _annotated(entry), node, limits=limits, what=what))
    if not found and passed:
        raise BadInput(f"{what}: no image for {node}; there is {', '.join(sorted(set(passed))[:20])}")
    return found


def layout_image(
    source: Source,
    entry: Descriptor,
    names: tuple[Reference, ...],
    node: Platform,
    *,
    limits: Limits,
    what: str,
) -> ArchiveImage:
    """The image for `node` that an entry of an index means, whose blobs `source` has by their digests."""

    def blob(wanted: Descriptor) -> bytes:
        content = _read(source, blob_name(wanted.digest), limits.manifest, what)
        if content is None:
            raise BadInput(f"{what}: {blob_name(wanted.digest)} is missing in the archive")
        if len(content) != wanted.size or sha256(content) != wanted.digest:
            raise BadInput(
                f"{what}: {blob_name(wanted.digest)} has another size or digest than its name says"
            )
        return content

    def document(wanted: Descriptor) -> Document:
        return Document(body=blob(wanted), digest=wanted.digest, content_type=wanted.media_type)

    resolved = read_image(document(entry), document, blob, node, limits=limits, what=what)
    return ArchiveImage(
        resolved=resolved,
        names=names,
        blobs=tuple(blob_name(layer.digest) for layer in resolved.manifest.layers),
        digested=True,
        transport="oci" if isinstance(source, DirectorySource) else "oci-archive",
    )


def _annotated(entry: Descriptor) -> tuple[Reference, ...]:
    """The name that an index entry's annotations give; a bare tag names nothing."""
    for text in (entry.annotations.get(_CONTAINERD_NAME, ""), entry.annotations.get(_REF_NAME, "")):
        if "/" in text or ":" in text:
            return (parse(text, field=f"annotation of {entry.digest}"),)
    return ()


def _entries(document: object, what: str) -> list[dict[str, Any]]:
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise BadInput(f"{what}: manifest.json is not a list of images")
    return document


def _docker_image(
    source: Source, entry: dict[str, Any], node: Platform, limits: Limits, what: str
) -> ArchiveImage:
    names, files, config_name = entry.get("RepoTags") or [], entry.get("Layers") or [], entry.get("Config")
    if not isinstance(config_name, str) or not _texts(names) or not _texts(files):
        raise BadInput(f"{what}: manifest.json: Config, RepoTags or Layers is not what it should be")
    body = _read(source, config_name, limits.manifest, what)
    if body is None:
        raise BadInput(f"{what}: {config_name[:200]!r} is missing in the archive")
    resolved = without_manifest(body, node, what=f"{what}: {config_name[:200]}")
    config = resolved.config
    if len(config.diff_ids) != len(files):
        raise BadInput(f"{what}: {len(files)} layers in manifest.json, {len(config.diff_ids)} diff ids")
    if len(files) > limits.layers:
        raise BadInput(f"{what}: {len(files)} layers, the limit is {limits.layers}")
    return ArchiveImage(
        resolved=resolved,
        names=tuple(parse(name, field=f"{what}: RepoTags") for name in names),
        blobs=tuple(files),
        digested=False,
        transport="docker-archive",
    )


def _texts(value: Sequence[object]) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def without_manifest(body: bytes, node: Platform, *, what: str) -> Resolved:
    """An image of which only the configuration is known, as Docker keeps it. Raises BadInput."""
    config = parse_config(body, what=what)
    architecture, variant = normalise(config.architecture, config.variant)
    check_platform(
        Platform(os=config.os.lower(), architecture=architecture, variant=variant), node, what=what
    )
    image_id = ImageId(sha256(body))
    # no manifest came with it, so none is kept; this one only lists the layers
    manifest = Manifest(
        media_type=DOCKER_MANIFEST,
        config=Descriptor(media_type=DOCKER_CONFIG, digest=image_id, size=len(body)),
        layers=tuple(Descriptor(media_type=_LAYER, digest=diff_id, size=0) for diff_id in config.diff_ids),
    )
    return Resolved(
        image_id=image_id,
        name_digest="",
        manifest_digest="",
        manifest=manifest,
        config=config,
        documents={image_id: body},
    )
