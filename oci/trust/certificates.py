"""Whether a certificate of an image's signer leads to an authority that the policy trusts, and whose it is.

A small path check, RFC 5280 section 6 without policies and name constraints: what it does not know and is
critical is refused. Revocation is not looked at; Fulcio's certificates live for minutes.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from oci.errors import BadInput

_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")  # Fulcio's: the bare text
_ISSUER_2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")  # the same as a DER UTF8String
_KNOWN = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_LONGEST = 5


def check_path(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    at: datetime.datetime,
) -> None:
    """Raises BadInput unless `leaf` is for signing code and leads to one of `roots`, all valid at `at`."""
    _check_times(leaf, at)
    _check_extensions(leaf)
    usages = _usages(leaf)
    if usages is None or ExtendedKeyUsageOID.CODE_SIGNING not in usages:
        raise BadInput("the certificate is not for signing code")
    if not _leads(leaf, tuple(intermediates), tuple(roots), at, below=0):
        raise BadInput("the certificate does not lead to an authority of the policy")


def _leads(
    certificate: x509.Certificate,
    intermediates: tuple[x509.Certificate, ...],
    roots: tuple[x509.Certificate, ...],
    at: datetime.datetime,
    *,
    below: int,
) -> bool:
    """`below` counts the authorities between this certificate's issuer and the leaf."""
    if any(_issued(certificate, root, at, below) for root in roots):
        return True
    if below >= _LONGEST:
        return False
    return any(
        _issued(certificate, between, at, below)
        and _leads(between, tuple(c for c in intermediates if c != between), roots, at, below=below + 1)
        for between in intermediates
    )


def _issued(
    certificate: x509.Certificate, issuer: x509.Certificate, at: datetime.datetime, below: int
) -> bool:
    try:
        _check_times(issuer, at)
        _check_extensions(issuer)
        basic = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(issuer)
    except (BadInput, x509.ExtensionNotFound, InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    if not basic.ca or (basic.path_length is not None and basic.path_length < below):
        return False
    try:
        if not issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            return False
    except x509.ExtensionNotFound:
        pass
    usages = _usages(issuer)
    wanted = {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    return usages is None or bool(wanted & usages)


def _check_times(certificate: x509.Certificate, at: datetime.datetime) -> None:
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise BadInput(
            f"a certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S}, not at {at:%Y-%m-%d %H:%M:%S} (UTC)"
        )


def _check_extensions(certificate: x509.Certificate) -> None:
    try:
        found = [extension.oid for extension in certificate.extensions if extension.critical]
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as failure:
        raise BadInput("a certificate's extensions cannot be read") from failure
    for oid in found:
        if oid not in _KNOWN:
            raise BadInput(f"a certificate has a critical extension {oid.dotted_string}, which is not known")


def _usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier] | None:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return None


def emails(certificate: x509.Certificate) -> tuple[str, ...]:
    """The e-mail addresses that the certificate is for."""
    names = _alternative_names(certificate)
    return () if names is None else tuple(names.get_values_for_type(x509.RFC822Name))


def serves_host(certificate: x509.Certificate, hostname: str) -> bool:
    """Whether the certificate is for that host; `*` stands for one label (RFC 6125)."""
    names = _alternative_names(certificate)
    wanted = hostname.lower().rstrip(".")
    for name in () if names is None else names.get_values_for_type(x509.DNSName):
        pattern = name.lower().rstrip(".")
        if pattern == wanted or (pattern.startswith("*.") and wanted.partition(".")[2] == pattern[2:]):
            return True
    return False


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def oidc_issuer(certificate: x509.Certificate) -> str:
    """Who told Fulcio the signer's identity. Raises BadInput: absent, or told in two ways that differ."""
    found = set()
    for oid in (_ISSUER, _ISSUER_2):
        try:
            extension = certificate.extensions.get_extension_for_oid(oid).value
        except x509.ExtensionNotFound:
            continue
        assert isinstance(extension, x509.UnrecognizedExtension)
        value = extension.value
        found.add(_utf8_string(value) if oid == _ISSUER_2 else value)
    if len(found) != 1:
        raise BadInput("the certificate does not say, in one way, which issuer vouched for its subject")
    return found.pop().decode("utf-8", "backslashreplace")


def _utf8_string(value: bytes) -> bytes:
    """The content of a DER UTF8String below 64 KiB."""
    if len(value) >= 2 and value[0] == 0x0C:
        if value[1] < 0x80 and len(value) == 2 + value[1]:
            return value[2:]
        if value[1] == 0x81 and len(value) >= 3 and value[2] >= 0x80 and len(value) == 3 + value[2]:
            return value[3:]
        if value[1] == 0x82 and len(value) >= 4 and len(value) == 4 + int.from_bytes(value[2:4]):
            return value[4:]
    raise BadInput("the certificate's issuer extension is not a UTF8String")
