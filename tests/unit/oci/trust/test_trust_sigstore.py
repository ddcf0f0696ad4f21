"""sigstore signatures: by keys, by certificates, in a transparency log; and what is wrong with them."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import BadInput
from oci.reference import parse
from oci.trust.policy import Demand
from oci.trust.requirements import Fulcio, Keys, Pki, SigstoreSigned
from oci.trust.signatures import BUNDLE, MOST, SIGNATURE, Signature, attachment_tag, parse_attachments
from oci.trust.verdict import Subject, check_sigstore, digest_of_demand
from tests.trust import signer
from tests.trust.signer import DIGEST, EMAIL, ISSUER, NOW, OTHER, Authority

NAME = "registry.example/app:1"
SUBJECT = Subject(reference=parse(NAME), digests=frozenset({DIGEST, f"sha256:{'3' * 64}"}))
MINUTE = datetime.timedelta(minutes=1)
KEYED = SigstoreSigned(keys=Keys(paths=("/key",)))
FILES = {"/key": signer.public_pem(signer.key("a")), "/log": signer.public_pem(signer.key("log"))}
GOOD = signer.signed(signer.key("a"), signer.payload(DIGEST, NAME))


def check(requirement: SigstoreSigned, *signatures: Signature, now: datetime.datetime = NOW) -> str:
    """Why it is refused, "" when it is not."""
    try:
        check_sigstore(requirement, FILES, signatures, SUBJECT, now=now.timestamp())
    except BadInput as failure:
        return failure.message
    return ""


def resigned(**changes: Any) -> Signature:
    document = json.loads(signer.payload(DIGEST, NAME))
    document["critical"].update(changes)
    return signer.signed(signer.key("a"), json.dumps(document).encode())


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (GOOD, ""),
        (signer.signed(signer.key("b"), GOOD.content), "it is not by a key of the policy"),
        (replace(GOOD, content=GOOD.content + b" "), "it is not by a key of the policy"),
        (signer.with_annotations(GOOD, signature="???"), "not base64"),
        (signer.signed(signer.key("a"), signer.payload(OTHER, NAME)), f"it is for another image, {OTHER}"),
        (
            signer.signed(signer.key("a"), signer.payload(DIGEST, "registry.example/app:2")),
            "it is for the name 'registry.example/app:2'",
        ),
        (
            signer.signed(signer.key("a"), signer.payload(DIGEST, NAME, "atomic container signature")),
            "critical.type is 'atomic container signature', not 'cosign container image signature'",
        ),
        (signer.signed(signer.key("a"), b"{"), "the signed text is not JSON"),
        (signer.signed(signer.key("a"), b"[]"), "the signed text does not have exactly the members critical"),
        (resigned(more=1), "critical does not have exactly the members identity, image, type"),
        (
            resigned(image={"docker-manifest-digest": DIGEST, "x": 1}),
            "critical.image does not have exactly the members docker-manifest-digest",
        ),
        (
            resigned(image={"docker-manifest-digest": "sha512:1"}),
            "critical.image.docker-manifest-digest is not a sha256 digest",
        ),
        (
            resigned(identity={"docker-reference": 1}),
            "critical.identity.docker-reference is not a text",
        ),
    ],
)
def test_a_key_must_have_signed_this_image_under_this_name(signature: Signature, reason: str) -> None:
    assert check(KEYED, signature) == (reason and f"signature 1: {reason}")


def test_one_good_signature_is_enough_and_all_reasons_are_told_when_there_is_none() -> None:
    bad = signer.signed(signer.key("b"), GOOD.content)
    other = signer.signed(signer.key("a"), signer.payload(OTHER, NAME))
    assert check(KEYED, bad, other, GOOD) == ""
    assert check(KEYED, bad, other) == (
        f"signature 1: it is not by a key of the policy; signature 2: it is for another image, {OTHER}"
    )
    assert check(KEYED) == "there is no sigstore signature of it"
    assert check(KEYED, Signature(content=b"one of gpg's")) == "there is no sigstore signature of it"


def test_any_key_of_several_will_do() -> None:
    both = SigstoreSigned(keys=Keys(data=tuple(signer.public_pem(signer.key(name)) for name in "ba")))
    assert check(both, GOOD) == ""


@pytest.mark.parametrize(
    "private", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()]
)
def test_rsa_and_ed25519_keys_sign_too(private: Any) -> None:
    if isinstance(private, rsa.RSAPrivateKey):
        raw = private.sign(GOOD.content, padding.PKCS1v15(), hashes.SHA256())
    else:
        raw = private.sign(GOOD.content)
    made = signer.with_annotations(GOOD, signature=base64.b64encode(raw).decode())
    requirement = SigstoreSigned(keys=Keys(data=(signer.public_pem(private),)))
    assert check(requirement, made) == ""
    assert check(requirement, GOOD) == "signature 1: it is not by a key of the policy"


@pytest.mark.parametrize(
    "body", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_a_file_that_is_no_key_is_named(body: bytes) -> None:
    with pytest.raises(BadInput, match=r"^/key: not a public key in PEM$"):
        check_sigstore(KEYED, {"/key": body}, [GOOD], SUBJECT, now=0)


# The transparency log

LOGGED = replace(KEYED, rekor=Keys(paths=("/log",)))
PEM = signer.public_pem(signer.key("a"))


def in_log(**changed: Any) -> Signature:
    return signer.with_annotations(GOOD, bundle=signer.bundle(signer.key("log"), GOOD, PEM, **changed))


def entry_of(content: bytes = GOOD.content, pem: bytes = PEM, signature: str = "") -> str:
    text = signature or GOOD.annotations[SIGNATURE]
    as_signed = Signature(content=content, annotations={SIGNATURE: text})
    return signer.bundle(signer.key("log"), as_signed, pem)


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        (entry_of(), ""),
        ("", "it comes without the word of a transparency log"),
        ("{", "the log's bundle is not JSON"),
        ("[]", "the log's bundle does not have exactly the members Payload, SignedEntryTimestamp"),
        (
            json.dumps({"Payload": {}, "SignedEntryTimestamp": ""}),
            "the log's bundle has no such payload as an entry has",
        ),
        (
            signer.bundle(signer.key("not the log"), GOOD, PEM),
            "the entry's timestamp is not signed by the transparency log",
        ),
        (
            entry_of().replace("c0ffee", "c0ffe0"),
            "the entry's timestamp is not signed by the transparency log",
        ),
        (
            entry_of().replace("c0ffee", "\\ud800"),
            "the entry's timestamp is not signed by the transparency log",
        ),
        (entry_of(content=b"another"), "the log's entry is of another payload"),
        (entry_of(signature="AAAA"), "the log's entry is of another signature"),
        (
            entry_of(pem=signer.public_pem(signer.key("b"))),
            "the log's entry is of another key or certificate",
        ),
        (entry_of(pem=b"AAAA"), "not one block of PEM"),
        (
            signer.bundle(signer.key("log"), GOOD, PEM, kind="intoto"),
            "the log's entry is of kind 'intoto', not a hashedrekord 0.0.1",
        ),
        (signer.bundle(signer.key("log"), GOOD, PEM, spec={}), "the log's entry is not complete"),
        (
            signer.bundle(signer.key("log"), GOOD, PEM, more=1),
            "the log's entry does not have exactly the members apiVersion, kind, spec",
        ),
    ],
)
def test_a_log_must_have_seen_this_very_signature(bundle: str, reason: str) -> None:
    signature = signer.with_annotations(GOOD, bundle=bundle)
    assert check(LOGGED, signature) == (reason and f"signature 1: {reason}")


def test_the_log_s_time_means_nothing_to_a_key() -> None:
    assert check(LOGGED, in_log(at=NOW - 10_000_000 * MINUTE)) == ""


# Certificates

ROOT = signer.authority("root")
BETWEEN = signer.authority("between", ROOT, path_length=0, usages=[ExtendedKeyUsageOID.CODE_SIGNING])
SIGNER = signer.key("signer")
FULCIO = SigstoreSigned(
    fulcio=Fulcio(
        authorities=Keys(data=(signer.certificate_pem(ROOT.certificate).encode(),)),
        issuer=ISSUER,
        email=EMAIL,
    ),
    rekor=Keys(paths=("/log",)),
)


def certified(
    certificate: x509.Certificate,
    *chain: Authority,
    at: datetime.datetime = NOW,
    private: signer.PrivateKey = SIGNER,
) -> Signature:
    made = signer.signed(private, signer.payload(DIGEST, NAME))
    pem = signer.certificate_pem(certificate)
    more = {"chain": signer.certificate_pem(*(one.certificate for one in chain))} if chain else {}
    log = signer.bundle(signer.key("log"), made, pem.encode(), at=at)
    return signer.with_annotations(made, certificate=pem, bundle=log, **more)


def short(**options: Any) -> x509.Certificate:
    return signer.leaf(BETWEEN, SIGNER, **options)


FORGED = signer.authority("forged", signer.authority("somebody's root"))
SERVER = signer.authority("server", ROOT, usages=[ExtendedKeyUsageOID.SERVER_AUTH])
NO_CA = signer.authority("no authority", ROOT, ca=False)
DEEP = signer.authority("deep", BETWEEN)
OLD = signer.authority("old", ROOT, valid=(NOW - 1000 * MINUTE, NOW - 900 * MINUTE))
UNKNOWN = x509.ObjectIdentifier("1.2.3.4")

FULCIO_CASES: dict[str, tuple[Callable[[], Signature], str]] = {
    "straight from the root": (lambda: certified(signer.leaf(ROOT, SIGNER)), ""),
    "through an intermediate": (lambda: certified(short(), BETWEEN), ""),
    "with the chain to the root": (lambda: certified(short(), BETWEEN, ROOT), ""),
    "with the newer issuer alone": (lambda: certified(short(issuer=None, issuer_2=ISSUER), BETWEEN), ""),
    "with both issuers": (lambda: certified(short(issuer_2=ISSUER), BETWEEN), ""),
    "without its intermediate": (
        lambda: certified(short()),
        "the certificate does not lead to an authority of the policy",
    ),
    "of another root": (
        lambda: certified(signer.leaf(FORGED, SIGNER), FORGED),
        "the certificate does not lead to an authority of the policy",
    ),
    "of an intermediate for servers": (
        lambda: certified(signer.leaf(SERVER, SIGNER), SERVER),
        "the certificate does not lead to an authority of the policy",
    ),
    "of one who is no authority": (
        lambda: certified(signer.leaf(NO_CA, SIGNER), NO_CA),
        "the certificate does not lead to an authority of the policy",
    ),
    "of an authority below one that may have none": (
        lambda: certified(signer.leaf(DEEP, SIGNER), DEEP, BETWEEN),
        "the certificate does not lead to an authority of the policy",
    ),
    "of an authority of yesterday": (
        lambda: certified(signer.leaf(OLD, SIGNER), OLD),
        "the certificate does not lead to an authority of the policy",
    ),
    "signed after its end": (
        lambda: certified(short(), BETWEEN, at=NOW + 6 * MINUTE),
        "a certificate is valid from 2026-06-01 11:55:00 to 2026-06-01 12:05:00, "
        "not at 2026-06-01 12:06:00 (UTC)",
    ),
    "for servers": (
        lambda: certified(short(usages=[ExtendedKeyUsageOID.SERVER_AUTH]), BETWEEN),
        "the certificate is not for signing code",
    ),
    "of another person": (
        lambda: certified(short(email="eve@example.com"), BETWEEN),
        f"its certificate is for eve@example.com, not {EMAIL}",
    ),
    "of nobody": (
        lambda: certified(short(email="", hosts=["h"]), BETWEEN),
        f"its certificate is for no address, not {EMAIL}",
    ),
    "vouched for by another": (
        lambda: certified(short(issuer="https://evil.example"), BETWEEN),
        f"its certificate's subject was vouched for by 'https://evil.example', not '{ISSUER}'",
    ),
    "vouched for by two": (
        lambda: certified(short(issuer_2="https://evil.example"), BETWEEN),
        "the certificate does not say, in one way, which issuer vouched for its subject",
    ),
    "vouched for by nobody": (
        lambda: certified(short(issuer=None), BETWEEN),
        "the certificate does not say, in one way, which issuer vouched for its subject",
    ),
    "with something critical and unknown": (
        lambda: certified(short(critical=UNKNOWN), BETWEEN),
        "a certificate has a critical extension 1.2.3.4, which is not known",
    ),
    "with another's certificate": (
        lambda: certified(short(), BETWEEN, private=signer.key("b")),
        "it is not by the key of its certificate",
    ),
    "without a certificate": (lambda: GOOD, "it comes without a certificate"),
    "with two certificates": (
        lambda: signer.with_annotations(
            GOOD, certificate=signer.certificate_pem(short(), BETWEEN.certificate)
        ),
        "it comes with more than one certificate of its signer",
    ),
    "with no certificate at all": (
        lambda: signer.with_annotations(GOOD, certificate="PEM"),
        "its certificate: no certificate in PEM",
    ),
}


@pytest.mark.parametrize("case", FULCIO_CASES)
def test_a_signature_by_a_short_lived_certificate(case: str) -> None:
    make, reason = FULCIO_CASES[case]
    assert check(FULCIO, make(), now=NOW + 10_000 * MINUTE) == (reason and f"signature 1: {reason}")


def pki(**names: str) -> SigstoreSigned:
    pem = signer.certificate_pem
    return SigstoreSigned(
        pki=Pki(
            roots=Keys(data=(pem(ROOT.certificate).encode(),)),
            intermediates=Keys(data=(pem(BETWEEN.certificate).encode(),)),
            **names,
        )
    )


@pytest.mark.parametrize(
    ("requirement", "certificate", "reason"),
    [
        (pki(email=EMAIL), short(issuer=None), ""),
        (pki(hostname="ci.example"), short(issuer=None, hosts=["CI.example."]), ""),
        (pki(hostname="ci.example"), short(issuer=None, hosts=["*.example"]), ""),
        (
            pki(hostname="a.ci.example"),
            short(hosts=["*.example"]),
            "certificate is not for the host a.ci.example",
        ),
        (
            pki(hostname="ci.example", email=EMAIL),
            short(hosts=["ci.example"], email="x@y"),
            f"for x@y, not {EMAIL}",
        ),
    ],
)
def test_a_signature_by_a_certificate_of_one_s_own_authority(
    requirement: SigstoreSigned, certificate: x509.Certificate, reason: str
) -> None:
    found = check(requirement, certified(certificate))
    assert found.endswith(reason) and bool(found) == bool(reason)
    late = check(requirement, certified(certificate), now=NOW + 6 * MINUTE)
    assert "not at 2026-06-01 12:06:00" in late


# What lies beside an image


def attachments(*layers: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "layers": list(layers)}).encode()


LAYER = {
    "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
    "digest": DIGEST,
    "size": 10,
    "annotations": {SIGNATURE: "AAAA", BUNDLE: "{}", "other": "x"},
}


def test_attachments_are_listed_with_what_counts_of_their_annotations() -> None:
    other = {**LAYER, "mediaType": "application/octet-stream"}
    unsigned = {**LAYER, "annotations": {}}
    (found,) = parse_attachments(attachments(other, unsigned, LAYER), what="w")
    assert (found.digest, found.size, found.annotations) == (DIGEST, 10, {SIGNATURE: "AAAA", BUNDLE: "{}"})
    assert len(parse_attachments(attachments(*[LAYER] * (MOST + 5)), what="w")) == MOST
    assert attachment_tag(DIGEST) == f"sha256-{'1' * 64}.sig"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}",
        b"[]",
        attachments(1),
        attachments({**LAYER, "size": -1}),
        attachments({**LAYER, "size": 1 << 20}),
        attachments({**LAYER, "digest": "sha256:1"}),
        attachments({**LAYER, "annotations": {SIGNATURE: 1}}),
        attachments({**LAYER, "annotations": {SIGNATURE: "A" * 100_000}}),
    ],
)
def test_what_is_no_manifest_of_signatures_is_refused(body: bytes) -> None:
    with pytest.raises(BadInput, match=r"^w: not a manifest of signatures$"):
        parse_attachments(body, what="w")


BASE = certified(short(), BETWEEN)


@given(
    name=st.sampled_from(sorted(BASE.annotations)),
    text=st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode()),
    at=st.integers(0, 4000),
)
def test_a_spoilt_annotation_is_a_reason_and_never_an_accident(name: str, text: str, at: int) -> None:
    old = BASE.annotations[name]
    spoilt = old[: at % len(old)] + text + old[at % len(old) + len(text) :]
    signature = Signature(content=BASE.content, annotations={**BASE.annotations, name: spoilt})
    check(FULCIO, signature)


@given(raw=st.binary(max_size=200))
def test_no_bytes_are_taken_for_a_key_or_certificate(raw: bytes) -> None:
    text = base64.encodebytes(raw).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"
    assert check(FULCIO, signer.with_annotations(GOOD, certificate=pem)).startswith("signature 1: ")


def test_the_digest_of_a_demand_follows_requirements_and_keys() -> None:
    demand = Demand(requirements=(KEYED,), scope="here")
    digests = {
        digest_of_demand(demand, FILES),
        digest_of_demand(demand, {**FILES, "/key": FILES["/log"]}),
        digest_of_demand(replace(demand, requirements=(LOGGED,)), FILES),
    }
    assert len(digests) == 3
    assert digest_of_demand(replace(demand, scope="there"), FILES) in digests
