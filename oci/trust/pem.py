"""Public keys and certificates out of PEM, and checking what a key has signed. Pure."""

from __future__ import annotations

import warnings
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from oci.errors import BadInput

Certificate: TypeAlias = x509.Certificate
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def usable(key: object, *, what: str) -> PublicKey:
    """The key, if it is of a kind that signs images. Raises BadInput."""
    if isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)):
        return key
    raise BadInput(f"{what}: neither an ECDSA, an RSA nor an Ed25519 key")


def certified_key(certificate: Certificate, *, what: str) -> PublicKey:
    """The key that a certificate is of. Raises BadInput."""
    try:
        return usable(certificate.public_key(), what=what)
    except (ValueError, UnsupportedAlgorithm) as failure:
        raise BadInput(f"{what}: its key cannot be read") from failure


def load_key(body: bytes, *, what: str) -> PublicKey:
    """The one public key of a PEM file. Raises BadInput."""
    try:
        return usable(serialization.load_pem_public_key(body), what=what)
    except (ValueError, UnsupportedAlgorithm) as failure:
        raise BadInput(f"{what}: not a public key in PEM") from failure


def load_certificates(body: bytes, *, what: str) -> tuple[Certificate, ...]:
    """All certificates of a PEM file, at least one. Raises BadInput."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oddities; those that matter are judged later
            return tuple(x509.load_pem_x509_certificates(body))
    except ValueError as failure:
        raise BadInput(f"{what}: no certificate in PEM") from failure


def der(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def has_signed(key: PublicKey, signature: bytes, content: bytes) -> bool:
    """Whether `signature` is that key's over `content`; SHA-256 but for Ed25519, as sigstore has it."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, content, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
