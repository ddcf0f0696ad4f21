"""Signs images as cosign does: with a key, or with a certificate of an authority made here."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from oci.trust.payload import COSIGN, SIMPLE
from oci.trust.signatures import BUNDLE, CERTIFICATE, CHAIN, SIGNATURE, Signature

PrivateKey = ec.EllipticCurvePrivateKey
NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
DIGEST = f"sha256:{'1' * 64}"
OTHER = f"sha256:{'2' * 64}"
ISSUER = "https://issuer.example/auth"
EMAIL = "builder@example.com"
FULCIO_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
FULCIO_ISSUER_2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")


@cache
def key(name: str) -> PrivateKey:
    """A key of its own for each name, the same for the whole run."""
    del name
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(private: Any) -> bytes:
    return bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def certificate_pem(*certificates: x509.Certificate) -> str:
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


def payload(digest: str, name: str, kind: str = COSIGN) -> bytes:
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": kind,
    }
    optional = {} if kind == SIMPLE else None
    return json.dumps({"critical": critical, "optional": optional}).encode()


def signed(private: PrivateKey, content: bytes, annotations: Mapping[str, str] | None = None) -> Signature:
    """A cosign signature over that payload."""
    raw = private.sign(content, ec.ECDSA(hashes.SHA256()))
    return Signature(
        content=content,
        annotations={SIGNATURE: base64.b64encode(raw).decode(), **(annotations or {})},
    )


def bundle(
    log: PrivateKey, signature: Signature, signer_pem: bytes, *, at: datetime.datetime = NOW, **changed: Any
) -> str:
    """What Rekor says of a signature; `changed` members of the entry are changed before it is signed."""
    body = {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(signature.content).hexdigest()}},
            "signature": {
                "content": signature.annotations[SIGNATURE],
                "publicKey": {"content": base64.b64encode(signer_pem).decode()},
            },
        },
        **changed,
    }
    entry = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "integratedTime": int(at.timestamp()),
        "logIndex": 7,
        "logID": "c0ffee",
    }
    said = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    stamp = log.sign(said, ec.ECDSA(hashes.SHA256()))
    return json.dumps({"SignedEntryTimestamp": base64.b64encode(stamp).decode(), "Payload": entry})


def with_annotations(signature: Signature, /, **annotations: str) -> Signature:
    names = {"bundle": BUNDLE, "certificate": CERTIFICATE, "chain": CHAIN, "signature": SIGNATURE}
    added = {names[word]: text for word, text in annotations.items()}
    return Signature(content=signature.content, annotations={**signature.annotations, **added})


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that signs others, with its key."""

    certificate: x509.Certificate
    key: PrivateKey


_DAY = datetime.timedelta(days=1)


def authority(
    name: str,
    parent: Authority | None = None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    valid: tuple[datetime.datetime, datetime.datetime] = (NOW - 365 * _DAY, NOW + 365 * _DAY),
    usages: Iterable[x509.ObjectIdentifier] = (),
) -> Authority:
    own = key(f"authority {name}")
    builder = _builder(name, own, parent, valid)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True
    )
    if chosen := list(usages):
        builder = builder.add_extension(x509.ExtendedKeyUsage(chosen), critical=False)
    issuer = own if parent is None else parent.key
    return Authority(builder.sign(issuer, hashes.SHA256()), own)


def leaf(
    parent: Authority,
    private: PrivateKey,
    *,
    email: str = EMAIL,
    hosts: Iterable[str] = (),
    issuer: str | None = ISSUER,
    issuer_2: str | None = None,
    usages: Iterable[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CODE_SIGNING,),
    valid: tuple[datetime.datetime, datetime.datetime] = (
        NOW - datetime.timedelta(minutes=5),
        NOW + datetime.timedelta(minutes=5),
    ),
    critical: x509.ObjectIdentifier | None = None,
) -> x509.Certificate:
    """A certificate as Fulcio makes them: of minutes, without a subject, for an address."""
    builder = _builder("", private, parent, valid)
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    if email:
        names.append(x509.RFC822Name(email))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
    if issuer is not None:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(FULCIO_ISSUER, issuer.encode()), critical=False
        )
    if issuer_2 is not None:
        text = issuer_2.encode()
        head = bytes([0x0C, len(text)]) if len(text) < 128 else bytes([0x0C, 0x81, len(text)])
        builder = builder.add_extension(
            x509.UnrecognizedExtension(FULCIO_ISSUER_2, head + text), critical=False
        )
    if critical is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(critical, b"\x05\x00"), critical=True)
    return builder.sign(parent.key, hashes.SHA256())


def _builder(
    name: str,
    private: PrivateKey,
    parent: Authority | None,
    valid: tuple[datetime.datetime, datetime.datetime],
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if parent is None else parent.certificate.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
    )
