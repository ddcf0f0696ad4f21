"""Writes images as an OCI image layout (image specification 1.1), the same bytes for the same entries."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.images.files import Entry, with_parents

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
NAME = "org.opencontainers.image.ref.name"
CREATED = "2026-01-01T00:00:00Z"


def architecture() -> str:
    """This machine's, in Go's words, which are OCI's."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}.get(machine, machine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image to write: its names, its layers base first, its configuration's `config` member.

    With `index` its names point at an index that has another platform's (unusable) manifest first.
    """

    names: tuple[str, ...]
    layers: Sequence[Sequence[Entry]]
    config: Mapping[str, Any] = field(default_factory=dict)
    index: bool = False


def write(top: Path, images: Iterable[Image]) -> None:
    """Fill an empty directory with a layout of the images, each name an entry of index.json."""
    (top / "blobs" / "sha256").mkdir(parents=True)
    (top / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    known: dict[int, tuple[dict[str, Any], str]] = {}
    manifests = []
    for image in images:
        descriptor = _write_image(top, image, known)
        manifests += [{**descriptor, "annotations": {NAME: name}} for name in image.names]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
    (top / "index.json").write_text(json.dumps(index, indent=1))


def read_names(top: Path) -> dict[str, dict[str, Any]]:
    """The descriptor of each name in a layout."""
    index = json.loads((top / "index.json").read_text())
    return {descriptor["annotations"][NAME]: descriptor for descriptor in index["manifests"]}


def blob_path(top: Path, digest: str) -> Path:
    return top / "blobs" / digest.replace(":", "/")


def _write_image(top: Path, image: Image, known: dict[int, tuple[dict[str, Any], str]]) -> dict[str, Any]:
    layers = []
    diff_ids = []
    for layer in image.layers:
        if id(layer) not in known:  # layers that images share are packed once
            tar = pack(layer)
            diff_id = f"sha256:{hashlib.sha256(tar).hexdigest()}"
            known[id(layer)] = (_write_blob(top, LAYER, gzip.compress(tar, 6, mtime=0)), diff_id)
        descriptor, diff_id = known[id(layer)]
        layers.append(descriptor)
        diff_ids.append(diff_id)
    manifest = _write_manifest(top, image, architecture(), layers, diff_ids)
    if not image.index:
        return manifest
    other = "s390x" if architecture() != "s390x" else "amd64"
    foreign = _write_manifest(top, image, other, layers, diff_ids)
    children = [
        {**foreign, "platform": {"os": "linux", "architecture": other}},
        {**manifest, "platform": {"os": "linux", "architecture": architecture()}},
    ]
    return _write_blob(top, INDEX, _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}))


def _write_manifest(
    top: Path, image: Image, machine: str, layers: list[dict[str, Any]], diff_ids: list[str]
) -> dict[str, Any]:
    config = {
        "architecture": machine,
        "os": "linux",
        "created": CREATED,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            **image.config,
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _write_blob(top, CONFIG, _json(config)),
        "layers": layers,
    }
    return _write_blob(top, MANIFEST, _json(manifest))


def pack(entries: Iterable[Entry]) -> bytes:
    """The uncompressed tar of a layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in with_parents(entries):
            member = tarfile.TarInfo(entry.path)
            member.mode, member.uid, member.gid, member.mtime = entry.mode, entry.uid, entry.gid, 1767225600
            if entry.link:
                member.type = tarfile.LNKTYPE if entry.hard else tarfile.SYMTYPE
                member.linkname = entry.link
                tar.addfile(member)
            elif entry.content is None:
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(entry.content)
                tar.addfile(member, io.BytesIO(entry.content))
    return buffer.getvalue()


def _write_blob(top: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blob_path(top, digest).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
