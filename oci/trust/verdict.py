"""Whether a signature meets a requirement. Pure: keys are read and GPG signatures opened by the caller.

A requirement is met by one good signature; the reasons of all others are told when there is none.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oci.errors import BadInput
from oci.reference import Reference
from oci.trust import payload as payloads
from oci.trust.certificates import check_path, emails, oidc_issuer, serves_host
from oci.trust.identity import Identity, accepts
from oci.trust.pem import Certificate, certified_key, der, has_signed, load_certificates, load_key
from oci.trust.policy import Demand
from oci.trust.rekor import logged_at, pem_body
from oci.trust.requirements import Fulcio, Keys, Pki, SigstoreSigned, key_files
from oci.trust.signatures import BUNDLE, CERTIFICATE, CHAIN, SIGNATURE, Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An image under a name. Who signs any of `digests` (of the index, of the manifest) signs it."""

    reference: Reference
    digests: frozenset[str]


def digest_of_demand(demand: Demand, files: Mapping[str, bytes]) -> str:
    """What changes when the requirements or a key of theirs change, in hex."""
    summed = hashlib.sha256(repr(demand.requirements).encode())
    for path in key_files(demand.requirements):
        summed.update(f"\0{path}\0{hashlib.sha256(files[path]).hexdigest()}".encode())
    return summed.hexdigest()


def check_signed(body: bytes, kind: str, identity: Identity, subject: Subject) -> None:
    """Raises BadInput unless a genuine signature is of this image and under a name that counts."""
    signed = payloads.parse_payload(body, kind)
    if not accepts(identity, subject.reference, signed.name):
        raise BadInput(f"it is for the name {signed.name[:300]!r}")
    if signed.digest not in subject.digests:
        raise BadInput(f"it is for another image, {signed.digest}")


def check_sigstore(
    requirement: SigstoreSigned,
    files: Mapping[str, bytes],
    signatures: Sequence[Signature],
    subject: Subject,
    *,
    now: float,
) -> None:
    """Raises BadInput unless one of the sigstore signatures meets the requirement.

    `files` has the content of each key file; `now` is in seconds since the Unix epoch.
    """
    roots = _Roots(requirement, files)
    reasons = []
    for number, signature in enumerate((one for one in signatures if one.sigstore), 1):
        try:
            _check_one(requirement, roots, signature, subject, now)
        except BadInput as failure:
            reasons.append(f"signature {number}: {failure.message}")
        else:
            return
    raise BadInput("; ".join(reasons) if reasons else "there is no sigstore signature of it")


class _Roots:
    """The keys and certificates of a requirement, read. Raises BadInput by file."""

    def __init__(self, requirement: SigstoreSigned, files: Mapping[str, bytes]) -> None:
        def read(keys: Keys | None) -> list[tuple[str, bytes]]:
            if keys is None:
                return []
            return [(path, files[path]) for path in keys.paths] + [
                ("the policy's key", one) for one in keys.data
            ]

        def certificates(keys: Keys | None) -> list[Certificate]:
            return [one for what, body in read(keys) for one in load_certificates(body, what=what)]

        self.keys = [load_key(body, what=what) for what, body in read(requirement.keys)]
        self.logs = [load_key(body, what=what) for what, body in read(requirement.rekor)]
        fulcio, pki = requirement.fulcio, requirement.pki
        self.authorities = certificates(fulcio.authorities if fulcio else pki.roots if pki else None)
        self.intermediates = certificates(pki.intermediates if pki else None)


def _check_one(
    requirement: SigstoreSigned, roots: _Roots, signature: Signature, subject: Subject, now: float
) -> None:
    try:
        raw = base64.b64decode(signature.annotations[SIGNATURE], validate=True)
    except ValueError as failure:
        raise BadInput("not base64") from failure
    if requirement.keys is not None:
        _check_key(requirement, roots, signature, raw)
    else:
        _check_certificate(requirement, roots, signature, raw, now)
    check_signed(signature.content, payloads.COSIGN, requirement.identity, subject)


def _check_key(requirement: SigstoreSigned, roots: _Roots, signature: Signature, raw: bytes) -> None:
    fitting = [key for key in roots.keys if has_signed(key, raw, signature.content)]
    if not fitting:
        raise BadInput("it is not by a key of the policy")
    if requirement.rekor is not None:
        _logged(roots, signature, raw, der(fitting[0]))


def _check_certificate(
    requirement: SigstoreSigned, roots: _Roots, signature: Signature, raw: bytes, now: float
) -> None:
    text = signature.annotations.get(CERTIFICATE, "")
    if not text:
        raise BadInput("it comes without a certificate")
    body = text.encode("utf-8", "replace")
    leaves = load_certificates(body, what="its certificate")
    if len(leaves) != 1:
        raise BadInput("it comes with more than one certificate of its signer")
    (leaf,) = leaves
    chain = signature.annotations.get(CHAIN, "")
    between = [*roots.intermediates]
    if chain:
        between += load_certificates(chain.encode("utf-8", "replace"), what="its certificates' chain")[:8]
    at = now if requirement.rekor is None else float(_logged(roots, signature, raw, pem_body(body)))
    try:
        when = datetime.datetime.fromtimestamp(at, datetime.UTC)
    except (ValueError, OverflowError, OSError) as failure:
        raise BadInput("the log's time is no time") from failure
    check_path(leaf, between, roots.authorities, when)
    if requirement.fulcio is not None:
        _check_fulcio(requirement.fulcio, leaf)
    if requirement.pki is not None:
        _check_pki(requirement.pki, leaf)
    if not has_signed(certified_key(leaf, what="its certificate"), raw, signature.content):
        raise BadInput("it is not by the key of its certificate")


def _check_fulcio(fulcio: Fulcio, leaf: Certificate) -> None:
    if fulcio.email not in emails(leaf):
        raise BadInput(
            f"its certificate is for {', '.join(emails(leaf)) or 'no address'}, not {fulcio.email}"
        )
    if (issuer := oidc_issuer(leaf)) != fulcio.issuer:
        raise BadInput(
            f"its certificate's subject was vouched for by {issuer[:200]!r}, not {fulcio.issuer!r}"
        )


def _check_pki(pki: Pki, leaf: Certificate) -> None:
    if pki.email and pki.email not in emails(leaf):
        raise BadInput(f"its certificate is for {', '.join(emails(leaf)) or 'no address'}, not {pki.email}")
    if pki.hostname and not serves_host(leaf, pki.hostname):
        raise BadInput(f"its certificate is not for the host {pki.hostname}")


def _logged(roots: _Roots, signature: Signature, raw: bytes, signer: bytes) -> int:
    bundle = signature.annotations.get(BUNDLE, "")
    if not bundle:
        raise BadInput("it comes without the word of a transparency log")
    return logged_at(bundle, roots.logs, signer=signer, signature=raw, payload=signature.content)
