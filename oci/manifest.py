"""Image manifests and indexes, OCI 1.1 and Docker schema 2, read from bytes; and the choice of a platform.

Sources: OCI image specification (manifest.md, image-index.md, descriptor.md), Docker image manifest V2
schema 2. Everything here comes from a registry and is not trusted: messages quote little of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oci.errors import BadInput
from oci.reference import is_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

ACCEPT = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
"""What a registry is asked for, in the order of preference."""

_INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_LAYERS = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
_ATTESTATION = "vnd.docker.reference.type"
_MAXIMUM_SIZE = 1 << 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Words of the image index: "linux", "amd64", "v2"; "" is not said."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A piece of content: what it is, its digest ("sha256:…") and its size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    foreign: bool = False  # has `urls`: the registry may not hold it


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]  # base first
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


def parse_document(body: bytes, *, content_type: str = "", what: str = "manifest") -> Manifest | Index:
    """The manifest or index in `body`.

    What it is, is said by its own mediaType, then by the Content-Type, then by its members: registries and
    proxies get the header wrong. Raises BadInput beginning with `what`: no JSON, schema 1, an artifact.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as failure:
        start = body[:40].decode("utf-8", "replace")
        raise BadInput(f"{what}: not JSON, it begins {start!r}") from failure
    if not isinstance(document, dict):
        raise BadInput(f"{what}: not a JSON object")
    if document.get("schemaVersion") == 1:
        raise BadInput(
            f"{what}: Docker image manifest version 2 schema 1 is not supported "
            "(deprecated since 2019): push the image again with a current tool"
        )
    if document.get("schemaVersion") != 2:
        raise BadInput(f"{what}: schemaVersion is not 2")
    own = document.get("mediaType") or ""
    if not isinstance(own, str):
        raise BadInput(f"{what}: mediaType is not a text")
    media_type = own or content_type.partition(";")[0].strip().lower()
    if media_type not in _INDEXES | _MANIFESTS:
        if own:
            raise BadInput(f"{what}: {own[:120]!r} is neither an image manifest nor an index")
        media_type = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    if media_type in _INDEXES or ("manifests" in document and "layers" not in document):
        return _index(document, media_type, what)
    return _manifest(document, media_type, what)


def _index(document: dict[str, Any], media_type: str, what: str) -> Index:
    entries = _list(document, "manifests", what)
    manifests = tuple(_descriptor(entry, f"{what}: manifests[{n}]") for n, entry in enumerate(entries))
    return Index(
        media_type=media_type, manifests=manifests, annotations=_texts(document, "annotations", what)
    )


def _manifest(document: dict[str, Any], media_type: str, what: str) -> Manifest:
    artifact = document.get("artifactType")
    if "config" not in document:
        kind = f" of type {str(artifact)[:120]!r}" if artifact else ""
        raise BadInput(f"{what}: config is missing, this is an artifact{kind}, not a container image")
    config = _descriptor(document["config"], f"{what}: config")
    if config.media_type not in _CONFIGS:
        kind = str(artifact or config.media_type)[:120]
        raise BadInput(f"{what}: this is an artifact of type {kind!r}, not a container image")
    layers = tuple(
        _descriptor(entry, f"{what}: layers[{n}]")
        for n, entry in enumerate(_list(document, "layers", what, missing_ok=True))
    )
    for number, layer in enumerate(layers):
        if layer.media_type not in _LAYERS:
            why = ", it is encrypted" if layer.media_type.endswith("+encrypted") else ""
            raise BadInput(
                f"{what}: layers[{number}].mediaType {layer.media_type[:120]!r} is no image layer{why}"
            )
    annotations = _texts(document, "annotations", what)
    return Manifest(media_type=media_type, config=config, layers=layers, annotations=annotations)


def _descriptor(entry: object, where: str) -> Descriptor:
    if not isinstance(entry, dict):
        raise BadInput(f"{where}: not an object")
    digest, size, media_type = entry.get("digest"), entry.get("size"), entry.get("mediaType")
    if not isinstance(digest, str) or not is_digest(digest):
        raise BadInput(f"{where}.digest: {str(digest)[:100]!r} is not a sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAXIMUM_SIZE:
        raise BadInput(f"{where}.size: {str(size)[:40]} is not a number of bytes")
    if not isinstance(media_type, str):
        raise BadInput(f"{where}.mediaType: missing")
    platform = entry.get("platform")
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size=size,
        platform=_platform(platform) if isinstance(platform, dict) else None,
        annotations=_texts(entry, "annotations", where),
        foreign=bool(entry.get("urls")),
    )


def _platform(entry: dict[str, Any]) -> Platform:
    architecture, variant = normalise(str(entry.get("architecture", "")), str(entry.get("variant", "")))
    return Platform(os=str(entry.get("os", "")).lower(), architecture=architecture, variant=variant)


def _list(document: dict[str, Any], name: str, what: str, *, missing_ok: bool = False) -> list[Any]:
    value = document.get(name)
    if value is None and missing_ok:
        return []
    if not isinstance(value, list):
        raise BadInput(f"{what}: {name} is not a list")
    return value


def _texts(document: dict[str, Any], name: str, what: str) -> dict[str, str]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise BadInput(f"{what}: {name} is not a map of texts")
    return value


_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"),
    "loongarch64": ("loong64", ""),
}


def normalise(architecture: str, variant: str = "") -> tuple[str, str]:
    """Architecture and variant in the index's words, from those or from uname(2)'s; defaults are dropped."""
    architecture, variant = architecture.lower(), variant.lower()
    name, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
    variant = variant or implied
    if variant and variant[0] != "v":
        variant = f"v{variant}"
    if (name, variant) in (("arm64", "v8"), ("amd64", "v1")):
        variant = ""
    if (name, variant) == ("arm", ""):
        variant = "v7"
    return name, variant


def runnable(node: Platform) -> tuple[Platform, ...]:
    """What a node runs, best first: its own variant, lower ones, then its 32-bit sibling."""
    levels: tuple[str, ...]
    if node.architecture == "amd64":
        levels = ("v4", "v3", "v2", "")
        levels = levels[levels.index(node.variant) :] if node.variant in levels else (node.variant, "")
        sibling: tuple[Platform, ...] = (Platform(architecture="386"),)
    elif node.architecture == "arm64":
        levels = (node.variant, "") if node.variant else ("",)
        sibling = tuple(Platform(architecture="arm", variant=v) for v in ("v8", "v7", "v6", "v5"))
    elif node.architecture == "arm":
        known = ("v8", "v7", "v6", "v5")
        levels = known[known.index(node.variant) :] if node.variant in known else known[1:]
        sibling = ()
    else:
        levels, sibling = (node.variant, "") if node.variant else ("",), ()
    own = tuple(Platform(architecture=node.architecture, variant=level) for level in levels)
    return own + sibling


def is_attestation(descriptor: Descriptor) -> bool:
    """Whether an index entry is BuildKit's attestation, which is no image of any platform."""
    platform = descriptor.platform
    unknown = platform is not None and platform.os == "unknown" and platform.architecture == "unknown"
    return unknown or _ATTESTATION in descriptor.annotations


def choose(index: Index, node: Platform, *, what: str = "index") -> tuple[Descriptor, ...]:
    """The entries of an index that may serve `node`, best first; nested indexes and silent entries last.

    Raises BadInput that lists the platforms there are, when none can.
    """
    ranked: list[tuple[int, int, Descriptor]] = []
    order = runnable(node)
    images = [entry for entry in index.manifests if not is_attestation(entry)]
    for number, entry in enumerate(images):
        if entry.media_type not in _INDEXES | _MANIFESTS:
            continue
        if entry.platform is None or not entry.platform.architecture:
            ranked.append((len(order), number, entry))
        elif entry.platform in order:
            ranked.append((order.index(entry.platform), number, entry))
    if not ranked:
        there = sorted({str(entry.platform) for entry in images if entry.platform is not None})
        names = ", ".join(there[:20]) + (", …" if len(there) > 20 else "")
        raise BadInput(f"{what}: no image for {node}; there is {names or 'no image at all'}")
    return tuple(entry for _, _, entry in sorted(ranked, key=lambda found: found[:2]))


def check_platform(found: Platform, node: Platform, *, what: str) -> None:
    """Refuse an image whose configuration names another platform than the node runs: BadInput."""
    if found.os not in ("", "linux") or (found.architecture and found not in runnable(node)):
        raise BadInput(f"{what}: the image is for {found}, this node runs {node}")
