"""Image references: what people write, the full form it stands for, and the ways to name an image by id.

Grammar and limits follow the distribution specification ("Pulling manifests") and Docker's conventions for
short names. Owns text only; whether an image of that name exists is the store's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oci.errors import BadInput

DEFAULT_REGISTRY = "docker.io"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_MAXIMUM_NAME = 255
_MAXIMUM_TEXT = 1024

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_DIGEST_SHAPE = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")
_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?\Z")
_HEX_ID = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A complete reference. With a digest the tag is only what the writer added: the digest decides."""

    registry: str  # host with optional port, as written; "docker.io" for short names
    repository: str  # path below the registry: "library/busybox"
    tag: str = ""  # "" only when a digest is given, or where none was wanted
    digest: str = ""  # "sha256:" and 64 hex digits, or ""

    @property
    def name(self) -> str:
        """Registry and repository: "docker.io/library/busybox"."""
        return f"{self.registry}/{self.repository}"

    @property
    def canonical(self) -> str:
        """The one spelling by which the image is known: name@digest if there is a digest, else name:tag."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest, else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def is_digest(text: str) -> bool:
    """Whether `text` is "sha256:" followed by 64 lower-case hex digits, the only algorithm kept here."""
    return _DIGEST.match(text) is not None


def parse(text: str, *, field: str = "image", default_tag: str = DEFAULT_TAG) -> Reference:
    """The complete reference that `text` stands for; a missing tag is "latest", a missing host docker.io.

    With `default_tag` "" a name without tag and digest stays one. Raises BadInput, beginning with `field`,
    for text that is no reference, including a bare image id.
    """
    shown = repr(text[:120])
    if not text:
        raise BadInput(f"{field}: empty image reference")
    if len(text) > _MAXIMUM_TEXT:
        raise BadInput(f"{field}: image reference of {len(text)} characters, the limit is {_MAXIMUM_TEXT}")
    if _HEX_ID.match(text) or _DIGEST.match(text):
        raise BadInput(f"{field}: {shown} is an image id, not a name that a registry knows")
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        if _DIGEST_SHAPE.match(digest):
            raise BadInput(f"{field}: {shown}: only sha256 digests of 64 lower-case hex digits are supported")
        raise BadInput(f"{field}: {shown}: what follows @ is not a digest")
    head, slash, path = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head.lower() != head):
        registry = head
    else:
        registry, path = DEFAULT_REGISTRY, rest
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = DEFAULT_REGISTRY
    repository, colon, tag = path.partition(":")
    if colon and not _TAG.match(tag):
        raise BadInput(f"{field}: {shown}: {tag[:140]!r} is not a tag")
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"{DEFAULT_NAMESPACE}/{repository}"
    if not _DOMAIN.match(registry):
        raise BadInput(f"{field}: {shown}: {registry[:80]!r} is not a registry host")
    for component in repository.split("/"):
        if not _COMPONENT.match(component):
            hint = " (names are lower case)" if component.lower() != component else ""
            raise BadInput(f"{field}: {shown}: {component[:80]!r} is not a repository name{hint}")
    if len(registry) + 1 + len(repository) > _MAXIMUM_NAME:
        raise BadInput(f"{field}: {shown}: name longer than {_MAXIMUM_NAME} characters")
    if not tag and not digest:
        tag = default_tag
    return Reference(registry=registry, repository=repository, tag=tag, digest=digest)
