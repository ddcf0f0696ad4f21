"""What a policy can demand of an image, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from oci.trust.identity import MATCH_REPO_DIGEST_OR_EXACT, Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Keys or certificates: in files, or in the policy itself. Any one of them will do."""

    paths: tuple[str, ...] = ()
    data: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class AcceptAnything:
    """`insecureAcceptAnything`."""


@dataclass(frozen=True, slots=True)
class Reject:
    """`reject`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBy:
    """A GPG key signed the image ("simple signing")."""

    keys: Keys
    identity: Identity = MATCH_REPO_DIGEST_OR_EXACT


@dataclass(frozen=True, slots=True, kw_only=True)
class Fulcio:
    """A short-lived certificate of this authority, for this person as that issuer knows them."""

    authorities: Keys
    issuer: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """A certificate of one's own authorities; at least one of `email` and `hostname` is set."""

    roots: Keys
    intermediates: Keys = Keys()
    email: str = ""
    hostname: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigstoreSigned:
    """A cosign signature by a key or by a certificate; with `rekor` it must be in that transparency log.

    Exactly one of `keys`, `fulcio` and `pki` is set; Fulcio's certificates live for minutes, so with them
    the log's time is needed.
    """

    keys: Keys | None = None
    fulcio: Fulcio | None = None
    pki: Pki | None = None
    rekor: Keys | None = None
    identity: Identity = MATCH_REPO_DIGEST_OR_EXACT


Requirement: TypeAlias = AcceptAnything | Reject | SignedBy | SigstoreSigned


def key_files(requirements: tuple[Requirement, ...]) -> tuple[str, ...]:
    """Every file that is named, sorted, each once."""
    found: set[str] = set()
    for requirement in requirements:
        found.update(path for keys in _keys(requirement) for path in keys.paths)
    return tuple(sorted(found))


def _keys(requirement: Requirement) -> tuple[Keys, ...]:
    if isinstance(requirement, SignedBy):
        return (requirement.keys,)
    if not isinstance(requirement, SigstoreSigned):
        return ()
    given = [requirement.keys, requirement.rekor]
    if requirement.fulcio is not None:
        given.append(requirement.fulcio.authorities)
    if requirement.pki is not None:
        given += [requirement.pki.roots, requirement.pki.intermediates]
    return tuple(keys for keys in given if keys is not None)
