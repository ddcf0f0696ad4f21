"""From a name to the one image for this node: manifest, index, platform, configuration. Blocking.

Asks the route's endpoints one after the other; everything below the first answer goes by digest, so a tag
that moves in mid-pull changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from oci.errors import Absent, BadInput, Busy, CrispError, Internal
from oci.image import ImageConfig, parse_config
from oci.manifest import (
    Descriptor,
    Index,
    Manifest,
    Platform,
    check_platform,
    choose,
    normalise,
    parse_document,
)
from oci.registries.endpoint import PULL, RESOLVE, Endpoint
from oci.workload import ImageId
from shim.images.cancellation import Cancellation
from shim.images.connections import UNAVAILABLE, Unreachable
from shim.images.routes import Route
from shim.images.session import Corrupt, Document, Session
from shim.images.settings import Limits

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """An image's documents, checked, and where they came from (None for an archive)."""

    image_id: ImageId
    name_digest: str  # of what the name led to: an index, or the manifest itself
    manifest_digest: str
    manifest: Manifest
    config: ImageConfig
    documents: dict[str, bytes]  # by digest
    media_type: str = ""  # of what the name led to, and its size in bytes
    size: int = 0
    endpoint: Endpoint | None = None
    credential_source: str = "anonymous"


class Unchanged(Exception):
    """The registry says that the name has a digest that the store has; `digest` is the one."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


def resolve_image(
    route: Route,
    node: Platform,
    *,
    limits: Limits,
    cancellation: Cancellation,
    known: Callable[[str], bool] | None = None,
) -> Resolved:
    """The image that the route's reference means for `node`.

    `known`, for a name that the store has, tells whether a digest is among its digests: then Unchanged is
    raised, once the registry has said that this is what the name means. Raises Busy (token
    RegistryUnavailable), Absent, BadInput, Internal, Cancelled.
    """
    reference = route.reference
    what = f"image {reference}"
    capability = PULL if reference.digest else RESOLVE

    def ask(session: Session) -> Resolved:
        found = _resolve_at(session, reference.target, node, limits=limits, what=what, known=known)
        return replace(found, endpoint=session.endpoint, credential_source=session.credential_source)

    return first_of(route.sessions(cancellation, capability=capability), ask, what=what)


def first_of(sessions: Iterable[Session], ask: Callable[[Session], T], *, what: str) -> T:
    """The first endpoint's answer. When all fail: the last one's error, with the others' beside it."""
    failures: list[CrispError] = []
    answered: set[str] = set()
    for session in sessions:
        if session.endpoint.fallback and session.endpoint.host in answered:
            continue
        try:
            return ask(session)
        except (Absent, BadInput, Internal, Unreachable) as failure:
            failures.append(failure)
        finally:
            if session.answered:
                answered.add(session.endpoint.host)
            session.close()
    if not failures:
        raise BadInput(f"{what}: no configured endpoint may be asked for it (capabilities)")
    raise together(failures)


def together(failures: list[CrispError]) -> CrispError:
    """One error of several endpoints': the last is the registry's own, the others say what mirrors did."""
    last = failures[-1]
    others = "; ".join(dict.fromkeys(str(failure) for failure in failures[:-1]))
    message = f"{last.message}; before that: {others}" if others else last.message
    if isinstance(last, Unreachable):
        return Busy(message, token=UNAVAILABLE)
    return type(last)(message)


def _resolve_at(
    session: Session,
    target: str,
    node: Platform,
    *,
    limits: Limits,
    what: str,
    known: Callable[[str], bool] | None,
) -> Resolved:
    # a HEAD costs no pull of a rate limit
    if known is not None and known(digest := session.manifest_digest(target, what=what)):
        raise Unchanged(digest)
    top = session.manifest(target, what=what)
    if known is not None and known(top.digest):
        raise Unchanged(top.digest)

    def fetch(wanted: Descriptor) -> Document:
        if wanted.size > limits.manifest:
            raise BadInput(f"{what}: manifest of {wanted.size} bytes, the limit is {limits.manifest}")
        found = session.manifest(wanted.digest, what=what)
        if len(found.body) != wanted.size:
            raise Corrupt(f"{what}: manifest {wanted.digest} has {len(found.body)} bytes, not {wanted.size}")
        return found

    def fetch_config(wanted: Descriptor) -> bytes:
        return session.small_blob(wanted.digest, wanted.size, what=f"{what}: configuration")

    return read_image(top, fetch, fetch_config, node, limits=limits, what=what)


def read_image(
    top: Document,
    fetch: Callable[[Descriptor], Document],
    fetch_config: Callable[[Descriptor], bytes],
    node: Platform,
    *,
    limits: Limits,
    what: str,
) -> Resolved:
    """Walk from the top document to manifest and configuration, fetching the rest with the functions given.

    Shared by registries and archives. Raises BadInput.
    """
    document, manifest, indexed = _walk(top, fetch, node, limits.index_depth, what)
    if len(manifest.layers) > limits.layers:
        raise BadInput(f"{what}: {len(manifest.layers)} layers, the limit is {limits.layers}")
    body = fetch_config(manifest.config)
    config = parse_config(body, what=f"{what}: configuration")
    if len(config.diff_ids) != len(manifest.layers):
        raise BadInput(
            f"{what}: the manifest has {len(manifest.layers)} layers, "
            f"the configuration {len(config.diff_ids)} diff ids"
        )
    architecture, variant = normalise(config.architecture, config.variant)
    found = Platform(os=config.os.lower(), architecture=architecture, variant="" if indexed else variant)
    if architecture or not indexed:
        check_platform(found, node, what=what)
    return Resolved(
        image_id=ImageId(manifest.config.digest),
        name_digest=top.digest,
        manifest_digest=document.digest,
        manifest=manifest,
        config=config,
        documents={manifest.config.digest: body, document.digest: document.body},
        media_type=parse_document(top.body, content_type=top.content_type, what=what).media_type,
        size=len(top.body),
    )


def _walk(
    top: Document, fetch: Callable[[Descriptor], Document], node: Platform, depth: int, what: str
) -> tuple[Document, Manifest, bool]:
    """The manifest for `node` at or below `top`, and whether an index named it for that platform."""
    parsed = parse_document(top.body, content_type=top.content_type, what=what)
    if isinstance(parsed, Manifest):
        return top, parsed, False
    if depth == 0:
        raise BadInput(f"{what}: indexes nested deeper than the limit")
    refusal: BadInput | None = None
    for entry in _candidates(parsed, node, what):
        try:
            document, manifest, _ = _walk(fetch(entry), fetch, node, depth - 1, what)
        except BadInput as failure:
            refusal = refusal or failure
            continue
        named = entry.platform is not None and bool(entry.platform.architecture)
        return document, manifest, named
    raise refusal or BadInput(f"{what}: the index names no image")


def _candidates(index: Index, node: Platform, what: str) -> tuple[Descriptor, ...]:
    # a few are enough: an index could otherwise make us fetch thousands of documents
    return choose(index, node, what=what)[:8]


def sha256(content: bytes) -> str:
    """The digest of bytes in memory, as "sha256:…"."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
