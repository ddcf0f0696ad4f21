"""policy.json: what it demands of which name, and what is refused in it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import BadInput
from oci.reference import parse
from oci.trust.identity import (
    MATCH_REPO_DIGEST_OR_EXACT,
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepository,
    RemapIdentity,
)
from oci.trust.policy import parse_policy
from oci.trust.requirements import AcceptAnything, Fulcio, Keys, Pki, Reject, SignedBy, SigstoreSigned

ANYTHING = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]
DIGEST = f"sha256:{'a' * 64}"


def policy(transports: Any = None, default: Any = None) -> bytes:
    document: dict[str, Any] = {"default": default or REJECT}
    if transports is not None:
        document["transports"] = transports
    return json.dumps(document).encode()


SCOPES = [
    "docker.io/library/busybox:1",
    f"docker.io/library/busybox@{DIGEST}",
    "docker.io/library/busybox",
    "docker.io/library",
    "docker.io",
    "registry.example:5000/team/app",
    "registry.example:5000/team",
    "registry.example:5000",
    "*.eu.example",
    "*.example",
]


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("busybox:1", '"docker.io/library/busybox:1"'),
        ("busybox:2", '"docker.io/library/busybox"'),
        (f"busybox@{DIGEST}", f'"docker.io/library/busybox@{DIGEST}"'),
        (f"busybox:1@{DIGEST}", f'"docker.io/library/busybox@{DIGEST}"'),
        ("nginx", '"docker.io/library"'),
        ("someone/nginx", '"docker.io"'),
        ("registry.example:5000/team/app:1", '"registry.example:5000/team/app"'),
        ("registry.example:5000/team/application:1", '"registry.example:5000/team"'),
        ("registry.example:5000/team/app/deeper:1", '"registry.example:5000/team/app"'),
        ("registry.example:5000/teams/app:1", '"registry.example:5000"'),
        ("registry.example:5001/team/app", '"*.example"'),
        ("registry.eu.example/team/app", '"*.eu.example"'),
        ("deep.down.eu.example:1/app", '"*.eu.example"'),
        ("eu.example/app", '"*.example"'),
        ("example/app", '"docker.io"'),
        ("example.com/app", '""'),
    ],
)
def test_the_longest_scope_decides(name: str, scope: str) -> None:
    scopes = dict.fromkeys([*SCOPES, ""], ANYTHING)
    found = parse_policy(policy({"docker": scopes}), where="p").of_registry(parse(name))
    assert found.scope == f"p: transports.docker.{scope}"


def test_without_a_scope_that_fits_the_default_holds() -> None:
    read = parse_policy(policy({"docker": {"a.example": ANYTHING}, "dir": {"": ANYTHING}}), where="p")
    assert read.of_registry(parse("b.example/x")).requirements == (Reject(),)
    assert read.of_registry(parse("b.example/x")).scope == "p: default"
    assert read.of_registry(parse("a.example/x")).requirements == (AcceptAnything(),)


def test_archives_are_judged_by_their_transport_and_path() -> None:
    transports = {
        "oci": {"/srv/images": ANYTHING, "/srv": REJECT},
        "docker-archive": {"": ANYTHING},
    }
    read = parse_policy(policy(transports), where="p")
    found = {
        (transport, path): read.of_archive(transport, path).scope
        for transport, path in [
            ("oci", "/srv/images/a"),
            ("oci", "/srv/imagesx"),
            ("oci", "/other"),
            ("docker-archive", "/srv/x.tar"),
            ("oci-archive", "/srv/images"),
        ]
    }
    assert found == {
        ("oci", "/srv/images/a"): 'p: transports.oci."/srv/images"',
        ("oci", "/srv/imagesx"): 'p: transports.oci."/srv"',
        ("oci", "/other"): "p: default",
        ("docker-archive", "/srv/x.tar"): 'p: transports.docker-archive.""',
        ("oci-archive", "/srv/images"): "p: default",
    }


B64 = base64.b64encode(b"key").decode()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"type": "insecureAcceptAnything"}, AcceptAnything()),
        ({"type": "reject"}, Reject()),
        (
            {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"},
            SignedBy(keys=Keys(paths=("/k",)), identity=MATCH_REPO_DIGEST_OR_EXACT),
        ),
        (
            {"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/k", "/l"],
             "signedIdentity": {"type": "matchExact"}},
            SignedBy(keys=Keys(paths=("/k", "/l")), identity=MatchExact()),
        ),
        (
            {"type": "signedBy", "keyType": "GPGKeys", "keyData": B64,
             "signedIdentity": {"type": "matchRepository"}},
            SignedBy(keys=Keys(data=(b"key",)), identity=MatchRepository()),
        ),
        (
            {"type": "sigstoreSigned", "keyPath": "/k", "rekorPublicKeyPath": "/r",
             "signedIdentity": {"type": "exactReference", "dockerReference": "a.example/b:1"}},
            SigstoreSigned(keys=Keys(paths=("/k",)), rekor=Keys(paths=("/r",)),
                           identity=ExactReference("a.example/b:1")),
        ),
        (
            {"type": "sigstoreSigned", "keyDatas": [B64, B64], "rekorPublicKeyDatas": [B64],
             "signedIdentity": {"type": "exactRepository", "dockerRepository": "a.example/b"}},
            SigstoreSigned(keys=Keys(data=(b"key", b"key")), rekor=Keys(data=(b"key",)),
                           identity=ExactRepository("a.example/b")),
        ),
        (
            {"type": "sigstoreSigned", "rekorPublicKeyData": B64,
             "fulcio": {"caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"},
             "signedIdentity": {"type": "remapIdentity", "prefix": "m.example", "signedPrefix": "a.example"}},
            SigstoreSigned(fulcio=Fulcio(authorities=Keys(paths=("/ca",)), issuer="https://i", email="a@b"),
                           rekor=Keys(data=(b"key",)), identity=RemapIdentity("m.example", "a.example")),
        ),
        (
            {"type": "sigstoreSigned", "pki": {"caRootsPath": "/r", "caIntermediatesData": B64,
                                               "subjectHostname": "h.example"}},
            SigstoreSigned(pki=Pki(roots=Keys(paths=("/r",)), intermediates=Keys(data=(b"key",)),
                                   hostname="h.example")),
        ),
    ],
)  # fmt: skip
def test_each_kind_of_requirement_is_read(written: dict[str, Any], meant: object) -> None:
    assert parse_policy(policy(default=[written]), where="p").default.requirements == (meant,)


GPG = {"type": "signedBy", "keyType": "GPGKeys"}
SIGSTORE = {"type": "sigstoreSigned"}
FULCIO = {"caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"type": "signedBaseLayer"}, r"^p: default\[0\]\.type: signedBaseLayer is not supported"),
        ({"type": "trustMe"}, r"^p: default\[0\]\.type: no requirement 'trustMe'; there are "),
        ({}, r"^p: default\[0\]: type is missing$"),
        ("reject", r"^p: default\[0\]: not an object$"),
        ({"type": "reject", "keyPath": "/k"}, r"^p: default\[0\]: unknown key 'keyPath'$"),
        (GPG, r"^p: default\[0\]: one of keyPath, keyPaths and keyData is missing$"),
        ({**GPG, "keyPath": "/k", "keyData": B64}, r"keyPath and keyData are given, there may be one"),
        ({**GPG, "keyPath": "k"}, r"^p: default\[0\]\.keyPath: 'k' is not an absolute path$"),
        ({**GPG, "keyPaths": []}, r"keyPaths: not a list with something in it$"),
        ({**GPG, "keyPaths": [1]}, r"keyPaths: not a text$"),
        ({**GPG, "keyData": "???"}, r"keyData: not base64$"),
        ({**GPG, "keyType": "X509Certificates", "keyPath": "/k"}, r"keyType: 'X509Certificates' is not"),
        ({**GPG, "keyPath": "/k", "signedIdentity": {"type": "any"}}, r"signedIdentity\.type: 'any' is no"),
        ({**GPG, "keyPath": "/k", "signedIdentity": {"type": "matchExact", "x": 1}}, r"unknown key 'x'"),
        (
            {**GPG, "keyPath": "/k", "signedIdentity": {"type": "exactReference", "dockerReference": "a"}},
            r"signedIdentity\.dockerReference: 'a' has no tag and no digest",
        ),
        (
            {
                **GPG,
                "keyPath": "/k",
                "signedIdentity": {"type": "exactRepository", "dockerRepository": "a:1"},
            },
            r"dockerRepository: 'a:1' is not a repository",
        ),
        (SIGSTORE, r"^p: default\[0\]: nothing is given, there must be one of a key "),
        ({**SIGSTORE, "keyPath": "/k", "fulcio": FULCIO}, r"a key and fulcio is given"),
        ({**SIGSTORE, "fulcio": FULCIO}, r"fulcio needs a rekorPublicKeyPath"),
        ({**SIGSTORE, "fulcio": {**FULCIO, "x": 1}, "rekorPublicKeyPath": "/r"}, r"fulcio: unknown key 'x'"),
        ({**SIGSTORE, "fulcio": {"caPath": "/c"}, "rekorPublicKeyPath": "/r"}, r"fulcio: oidcIssuer is miss"),
        ({**SIGSTORE, "pki": {"caRootsPath": "/r"}}, r"one of subjectEmail and subjectHostname is missing$"),
        ({**SIGSTORE, "pki": {"subjectEmail": "a@b"}}, r"one of caRootsPath and caRootsData is missing$"),
        (
            {**SIGSTORE, "pki": {"caRootsPath": "/r", "subjectEmail": "a@b"}, "rekorPublicKeyPath": "/r"},
            r"a rekorPublicKey does not go with pki$",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_key(written: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_policy(policy(default=[written]), where="p")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", r"^p: not JSON: "),
        (b"\xff", r"^p: not JSON: "),
        (b"[" * 100_000, r"^p: not JSON: "),
        (b"[]", r"^p: not an object$"),
        (b"{}", r"^p: default is missing$"),
        (b'{"default": []}', r"^p: default: not a list with at least one requirement$"),
        (b'{"default": [{"type": "reject"}], "default": [{"type": "reject"}]}', r"'default' is given twice"),
        (policy({"docker": {"x": []}}), r'^p: transports\.docker\."x": not a list'),
        (policy({"dokcer": {}}), r"^p: transports\.dokcer: no transport of that name; there are "),
        (policy([]), r"^p: transports: not an object$"),
        (json.dumps({"default": REJECT, "defaults": 1}).encode(), r"^p: unknown key 'defaults'$"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_policy(body, where="p")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    key=st.sampled_from(["default", "transports", "keyPath", "type", "fulcio", "signedIdentity"]), value=JSON
)
def test_no_value_anywhere_does_more_than_be_refused(key: str, value: Any) -> None:
    requirement = {**SIGSTORE, "keyPath": "/k", key: value}
    for document in ({"default": REJECT, key: value}, {"default": [requirement]}):
        try:
            parse_policy(json.dumps(document).encode(), where="p")
        except BadInput as failure:
            assert failure.message.startswith("p: ")
