"""Signatures as they lie beside an image, and the cosign attachments of a registry that hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from oci.errors import BadInput
from oci.reference import is_digest

SIGNATURE = "dev.cosignproject.cosign/signature"
CERTIFICATE = "dev.sigstore.cosign/certificate"
CHAIN = "dev.sigstore.cosign/chain"
BUNDLE = "dev.sigstore.cosign/bundle"
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"

MOST = 16
"""Signatures of one kind that are looked at: whoever may push can add any number."""
LARGEST = 64 << 10
"""Bytes of one signature or payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A sigstore signature: cosign's annotations and what was signed; or a GPG one, which has both in one."""

    content: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def sigstore(self) -> bool:
        return SIGNATURE in self.annotations


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """One layer of an attachment: where the payload is, and what goes with it."""

    digest: str
    size: int
    annotations: Mapping[str, str]


def attachment_tag(digest: str) -> str:
    """Where cosign keeps the signatures of a manifest: "sha256-HEX.sig"."""
    return f"{digest.replace(':', '-')}.sig"


def parse_attachments(body: bytes, *, what: str) -> tuple[Attached, ...]:
    """The signatures that such a manifest lists, `MOST` at most. Raises BadInput."""
    try:
        document = json.loads(body)
        layers = document["layers"]
        found = []
        for layer in layers:
            if layer.get("mediaType") != PAYLOAD:
                continue
            annotations = layer.get("annotations") or {}
            digest, size = layer["digest"], layer["size"]
            if not is_digest(digest) or not isinstance(size, int) or not 0 <= size <= LARGEST:
                raise ValueError
            kept = {
                name: annotations[name]
                for name in (SIGNATURE, CERTIFICATE, CHAIN, BUNDLE)
                if name in annotations
            }
            if not all(isinstance(text, str) and len(text) <= LARGEST for text in kept.values()):
                raise ValueError
            if SIGNATURE in kept:
                found.append(Attached(digest=digest, size=size, annotations=kept))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
        raise BadInput(f"{what}: not a manifest of signatures") from failure
    return tuple(found[:MOST])
