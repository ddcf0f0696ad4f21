"""Archives made of what a registry double holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.doubles.registry import MANIFEST, Registry, digest_of

NAME = "org.opencontainers.image.ref.name"


def write_layout(double: Registry, top: Path, *entries: dict[str, Any]) -> Path:
    """Everything that the double holds as an OCI layout with this index."""
    blobs = top / "blobs/sha256"
    blobs.mkdir(parents=True)
    for digest, body in double.blobs.items():
        (blobs / digest[7:]).write_bytes(body)
    for _, body in double.manifests.values():
        (blobs / digest_of(body)[7:]).write_bytes(body)
    (top / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (top / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(entries)}))
    return top


def entry(
    double: Registry, manifest: str, name: str = "", kind: str = MANIFEST, **more: Any
) -> dict[str, Any]:
    body = next(body for _, body in double.manifests.values() if digest_of(body) == manifest)
    annotations = {NAME: name} if name else {}
    return {"mediaType": kind, "digest": manifest, "size": len(body), "annotations": annotations, **more}
