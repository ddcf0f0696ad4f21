"""Manifests and image configurations, kept by digest as they came. Blocking, for threads."""

from __future__ import annotations

import logging

from oci.errors import Internal
from shim.files import write_atomic
from shim.images.layout import Layout
from shim.images.receive import disk_failure
from shim.records import ImageRecord

log = logging.getLogger(__name__)

_BLOCK = 4096


def write_documents(layout: Layout, documents: dict[str, bytes], what: str) -> int:
    """Keep documents by their digest, durably; how many bytes they take on disk. Raises Full, Internal."""
    for digest, content in documents.items():
        try:
            write_atomic(layout.document(digest), content, durable=True)
        except OSError as failure:
            raise disk_failure(failure, layout.document(digest), what) from failure
    return sum(-(-len(content) // _BLOCK) * _BLOCK for content in documents.values())


def read_document(layout: Layout, digest: str) -> bytes:
    """A document that is kept. Raises Internal."""
    path = layout.document(digest)
    try:
        return path.read_bytes()
    except OSError as failure:
        raise Internal(
            f"reading {path}: {(failure.strerror or '').lower()}: pull the image again"
        ) from failure


def digests_of(record: ImageRecord) -> frozenset[str]:
    """The documents that an image needs."""
    return frozenset(digest for digest in (record.id, record.manifest_digest) if digest)


def remove_documents(layout: Layout, digests: frozenset[str]) -> None:
    """What cannot be removed stays until the next start, which clears what no record knows."""
    for digest in digests:
        path = layout.document(digest)
        try:
            path.unlink(missing_ok=True)
        except OSError as failure:
            log.warning("a document cannot be removed", extra={"path": str(path), "reason": str(failure)})
