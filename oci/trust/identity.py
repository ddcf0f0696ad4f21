"""Which name a signature must have been made for: `signedIdentity` of containers-policy.json(5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from oci.errors import BadInput
from oci.reference import Reference, parse


@dataclass(frozen=True, slots=True)
class MatchRepoDigestOrExact:
    """The name that is pulled; by digest, its repository: the digest is compared anyway."""

    def accepts(self, wanted: Reference, signed: Reference) -> bool:
        return _repo_digest_or_exact(wanted, signed)


@dataclass(frozen=True, slots=True)
class MatchExact:
    """The very name that is pulled, with its tag or digest."""

    def accepts(self, wanted: Reference, signed: Reference) -> bool:
        return _named(signed) and str(wanted) == str(signed)


@dataclass(frozen=True, slots=True)
class MatchRepository:
    """Any tag or digest of the repository that is pulled from."""

    def accepts(self, wanted: Reference, signed: Reference) -> bool:
        return wanted.name == signed.name


@dataclass(frozen=True, slots=True)
class ExactReference:
    """One name, whatever is pulled."""

    reference: str

    def accepts(self, wanted: Reference, signed: Reference) -> bool:
        del wanted
        return _named(signed) and str(parse(self.reference)) == str(signed)


@dataclass(frozen=True, slots=True)
class ExactRepository:
    """One repository, whatever is pulled."""

    repository: str

    def accepts(self, wanted: Reference, signed: Reference) -> bool:
        del wanted
        return parse(self.repository).name == signed.name


@dataclass(frozen=True, slots=True)
class RemapIdentity:
    """As `MatchRepoDigestOrExact`, for a mirror: `prefix` of the pulled name was `signed_prefix`."""

    prefix: str
    signed_prefix: str

    def accepts(self, wanted: Reference, signed: Reference) -> bool:
        name = wanted.name
        if name != self.prefix and not name.startswith(f"{self.prefix}/"):
            return _repo_digest_or_exact(wanted, signed)
        try:
            moved = parse(f"{self.signed_prefix}{name[len(self.prefix) :]}")
        except BadInput:
            return False
        return _repo_digest_or_exact(replace(moved, tag=wanted.tag, digest=wanted.digest), signed)


Identity: TypeAlias = (
    MatchRepoDigestOrExact | MatchExact | MatchRepository | ExactReference | ExactRepository | RemapIdentity
)
MATCH_REPO_DIGEST_OR_EXACT = MatchRepoDigestOrExact()


def accepts(identity: Identity, wanted: Reference, signed: str) -> bool:
    """Whether a signature for the name `signed` serves for an image that is pulled as `wanted`."""
    try:
        name = parse(signed, default_tag="")
    except BadInput:
        return False
    return identity.accepts(wanted, name)


def _named(reference: Reference) -> bool:
    """Whether it names one image, not only a repository."""
    return bool(reference.tag or reference.digest)


def _repo_digest_or_exact(wanted: Reference, signed: Reference) -> bool:
    if not _named(signed):
        return False
    return wanted.name == signed.name if wanted.digest else str(wanted) == str(signed)
