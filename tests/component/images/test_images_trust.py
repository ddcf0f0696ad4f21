"""Policies, signatures and verifiers: what does not come in, and what stops being usable when they change."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from oci.errors import CrispError, Untrusted
from oci.trust.signatures import CHAIN, Signature, attachment_tag
from shim.images.settings import TrustSettings
from tests.component.images.archives import entry, write_layout
from tests.component.images.rig import content, failure, opened, run
from tests.doubles import registry
from tests.doubles.registry import CONFIG, INDEX, MANIFEST, Pushed, Registry, tar_of
from tests.trust import signer

ONE = tar_of({"one": b"1"})
ANYTHING = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"


class Node:
    """A node's files below a directory: policy, keys, verifiers."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for name in ("policies", "registries.d", "lookaside"):
            (top / name).mkdir(parents=True)
        self.write_key("key", "a")

    def write_key(self, file: str, name: str) -> Path:
        path = self.top / file
        path.write_bytes(signer.public_pem(signer.key(name)))
        return path

    def write_policy(
        self, scopes: dict[str, Any], default: Any = None, namespace: str = "", **more: Any
    ) -> None:
        path = self.top / (f"policies/{namespace}.json" if namespace else "policy.json")
        transports = {"docker": scopes, **more}
        path.write_text(json.dumps({"default": default or REJECT, "transports": transports}))

    @property
    def signed(self) -> list[dict[str, Any]]:
        return [{"type": "sigstoreSigned", "keyPath": str(self.top / "key")}]

    def settings(self, **more: Any) -> TrustSettings:
        return TrustSettings(
            policy=self.top / "policy.json",
            required=True,
            policy_dir=self.top / "policies",
            registries_dir=self.top / "registries.d",
            **more,
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node")


def attach(double: Registry, repository: str, digest: str, *signatures: Signature) -> None:
    """Put signatures beside a manifest as cosign does."""
    config = double.put_blob(b"{}")
    layers = [
        {
            "mediaType": PAYLOAD,
            "digest": double.put_blob(one.content),
            "size": len(one.content),
            "annotations": dict(one.annotations),
        }
        for one in signatures
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config, "size": 2},
        "layers": layers,
    }
    double.put_manifest(repository, attachment_tag(digest), document, MANIFEST)


def sign(double: Registry, pushed: str, name: str, key: str = "a", repository: str = "app") -> None:
    made = signer.signed(signer.key(key), signer.payload(pushed, double.reference(name)))
    attach(double, repository, pushed, made)


def message(error: CrispError) -> str:
    assert isinstance(error, Untrusted)
    return str(error)


def test_a_rejected_image_is_refused_before_any_registry_is_asked(
    double: Registry, home: Path, node: Node
) -> None:
    double.push("app", "1", [ONE])
    node.write_policy({double.address: REJECT}, default=ANYTHING)

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            name = double.reference("app:1")
            assert message(await failure(store.pull(name))) == (
                f"SignatureValidationFailed: {name}: rejected by {node.top}/policy.json: "
                f'transports.docker."{double.address}"'
            )
            assert (double.requests, content(home)) == ([], [])

    run(story)


def test_only_what_the_key_signed_comes_in_and_nothing_else_is_fetched(
    double: Registry, home: Path, node: Node
) -> None:
    good, bad, plain = (double.push(name, "1", [tar_of({name: b"x"})]) for name in ("good", "bad", "plain"))
    sign(double, good.manifest, "good:1", repository="good")
    sign(double, bad.manifest, "bad:1", key="b", repository="bad")
    node.write_policy({double.address: node.signed})

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            record = await store.pull(double.reference("good:1"))
            assert record.id == good.config
            await store.check(record, double.reference("good:1"), "")
            await store.check(record, record.id, "")
            where = f'{node.top}/policy.json: transports.docker."{double.address}"'
            assert message(await failure(store.pull(double.reference("bad:1")))) == (
                f"SignatureValidationFailed: {double.reference('bad:1')}: {where} is not met: "
                "signature 1: it is not by a key of the policy"
            )
            assert message(await failure(store.pull(double.reference("plain:1")))).endswith(
                "is not met: there is no sigstore signature of it"
            )
            for pushed in (bad, plain):
                assert double.asked(f"blobs/{pushed.layers[0]}") == []
            assert [image.id for image in store.all()] == [good.config]

    run(story)


def test_a_signature_of_the_index_is_one_of_its_images(double: Registry, home: Path, node: Node) -> None:
    app = double.push("app", "", [ONE])
    _, body = double.manifests[f"app@{app.manifest}"]
    platform = {"os": "linux", "architecture": registry.ARCHITECTURE}
    entries = [{"mediaType": MANIFEST, "digest": app.manifest, "size": len(body), "platform": platform}]
    index = double.put_manifest(
        "app", "1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX
    )
    node.write_policy({double.address: node.signed})

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            name = double.reference("app:1")
            assert "there is no sigstore signature" in message(await failure(store.pull(name)))
            sign(double, index, "app:1")
            record = await store.pull(name)
            await store.check(record, name, "")
            await store.check(record, double.reference(f"app@{index}"), "")
            (admission,) = record.admissions
            assert (admission.digest, admission.media_type) == (index, INDEX)

    run(story)


def test_a_changed_policy_holds_for_what_is_there_already(double: Registry, home: Path, node: Node) -> None:
    app = double.push("app", "1", [ONE])
    node.write_policy({}, default=ANYTHING)
    name = double.reference("app:1")

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            record = await store.pull(name)
            await store.check(record, name, "team")
            node.write_policy({double.address: node.signed})
            assert message(await failure(store.check(record, name, "team"))).endswith(
                "is not met: there is no sigstore signature of it (the policy has changed since the image "
                "came; pull it again to look for new signatures)"
            )
            # by its id it is no other image
            assert "no sigstore signature" in message(await failure(store.check(record, record.id, "")))
            assert "no sigstore signature" in message(await failure(store.pull(name)))
            sign(double, app.manifest, "app:1")
            layers = len(double.asked(f"blobs/{app.layers[0]}"))
            record = await store.pull(name)
            await store.check(record, name, "team")
            assert len(double.asked(f"blobs/{app.layers[0]}")) == layers
        before = len(double.requests)
        # what was signed is remembered: no registry is asked when keys come and go
        async with opened(home, trust=node.settings()) as store:
            (record,) = store.all()
            node.write_key("key", "b")
            assert "it is not by a key of the policy" in message(await failure(store.check(record, name, "")))
            node.write_key("key", "a")
            await store.check(record, name, "")
            node.write_policy({double.address: [*node.signed, *REJECT]})
            assert "rejected by" in message(await failure(store.check(record, name, "")))
            node.write_policy(
                {double.address: [{**node.signed[0], "signedIdentity": {"type": "matchExact"}}]}
            )
            await store.check(record, name, "")
        assert len(double.requests) == before

    run(story)


def test_an_image_with_a_name_that_is_let_in_is_let_in_by_its_id(
    double: Registry, home: Path, node: Node
) -> None:
    app = double.push("app", "1", [ONE])
    double.manifests["other:1"] = double.manifests["app:1"]
    double.manifests[f"other@{app.manifest}"] = double.manifests["app:1"]
    node.write_policy({}, default=ANYTHING)

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            await store.pull(double.reference("app:1"))
            record = await store.pull(double.reference("other:1"))
            assert len(record.admissions) == 2
            node.write_policy({double.reference("app"): REJECT}, default=ANYTHING)
            assert "rejected" in message(await failure(store.check(record, double.reference("app:1"), "")))
            await store.check(record, double.reference("other:1"), "")
            await store.check(record, record.id, "")

    run(story)


def test_a_namespace_has_a_policy_of_its_own(double: Registry, home: Path, node: Node) -> None:
    double.push("app", "1", [ONE])
    node.write_policy({}, default=ANYTHING)
    node.write_policy({}, namespace="strict")
    name = double.reference("app:1")

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            record = await store.pull(name, namespace="lax")
            refused = (
                f"SignatureValidationFailed: {name}: rejected by {node.top}/policies/strict.json: default"
            )
            assert message(await failure(store.pull(name, namespace="strict"))) == refused
            assert message(await failure(store.check(record, name, "strict"))) == refused
            await store.check(record, name, "lax")
            await store.check(record, name, "../policy")

    run(story)


def test_a_broken_or_missing_policy_lets_nothing_in(double: Registry, home: Path, node: Node) -> None:
    double.push("app", "1", [ONE])
    name = double.reference("app:1")
    path = node.top / "policy.json"
    key = node.top / "gone"

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            missing = message(await failure(store.pull(name)))
            path.write_text('{"default": [{"type": "reject"}], "Default": 1}')
            unknown = message(await failure(store.pull(name)))
            node.write_policy({"": [{"type": "sigstoreSigned", "keyPath": str(key)}]})
            keyless = message(await failure(store.pull(name)))
            path.unlink()
            path.mkdir()
            unreadable = message(await failure(store.pull(name)))
            assert [missing, unknown, keyless, unreadable] == [
                f"SignatureValidationFailed: {name}: signature policy {words}"
                for words in (
                    f"{path}: the signature policy is configured and not there",
                    f"{path}: unknown key 'Default'",
                    f'{path}: transports.docker."": {key}: no such file',
                    f"{path}: is a directory (EISDIR)",
                )
            ]
        async with opened(home, trust=TrustSettings(policy=node.top / "no such file")) as store:
            await store.pull(name)

    run(story)


def test_archives_come_in_as_their_transport_says(
    double: Registry, home: Path, node: Node, tmp_path: Path
) -> None:
    app = double.push("app", "1", [ONE])
    layout = write_layout(double, tmp_path / "layout", entry(double, app.manifest, "r.example/app:1"))

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            node.write_policy({}, default=node.signed)
            assert message(await failure(store.import_archive(layout))) == (
                f"SignatureValidationFailed: archive {layout}: {node.top}/policy.json: default demands a "
                "signature, which an archive does not bring"
            )
            assert content(home) == []
            node.write_policy({}, oci={str(tmp_path): ANYTHING})
            (record,) = await store.import_archive(layout)
            await store.check(record, "r.example/app:1", "")
            await store.check(record, record.id, "")
            node.write_policy({}, oci={str(layout): REJECT, str(tmp_path): ANYTHING})
            assert f'rejected by {node.top}/policy.json: transports.oci."{layout}"' in message(
                await failure(store.check(record, "r.example/app:1", ""))
            )

    run(story)


def test_an_archive_lets_in_no_pull_of_its_image(
    double: Registry, home: Path, node: Node, tmp_path: Path
) -> None:
    """The name means at the registry what the archive brought: the registry's scope is to say yes too."""
    app = double.push("app", "1", [ONE])
    name = double.reference("app:1")
    layout = write_layout(double, tmp_path / "layout", entry(double, app.manifest, name))
    node.write_policy({double.address: node.signed}, oci={"": ANYTHING})

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            (record,) = await store.import_archive(layout)
            assert (record.tags, record.digests) == ((name,), (double.reference(f"app@{app.manifest}"),))
            assert "there is no sigstore signature of it" in message(await failure(store.pull(name)))
            sign(double, app.manifest, "app:1")
            record = await store.pull(name)
            (_, admission) = record.admissions
            assert (admission.source, admission.name, admission.digest) == ("docker", name, app.manifest)
            before = len(double.requests)
            assert await store.pull(name) == record
            assert [request.method for request in double.requests[before:]] == ["HEAD"]

    run(story)


# A certificate and a log, through the registry


def test_a_certificate_is_judged_by_the_time_of_the_log(double: Registry, home: Path, node: Node) -> None:
    app = double.push("app", "1", [ONE])
    root = signer.authority("component root")
    private = signer.key("component signer")
    made = signer.signed(private, signer.payload(app.manifest, double.reference("app:1")))
    pem = signer.certificate_pem(signer.leaf(root, private))
    log = signer.bundle(signer.key("log"), made, pem.encode())
    signature = signer.with_annotations(made, certificate=pem, bundle=log)
    signature.annotations[CHAIN] = signer.certificate_pem(root.certificate)  # type: ignore[index]
    attach(double, "app", app.manifest, signature)
    requirement = {
        "type": "sigstoreSigned",
        "fulcio": {
            "caData": base64.b64encode(signer.certificate_pem(root.certificate).encode()).decode(),
            "oidcIssuer": signer.ISSUER,
            "subjectEmail": signer.EMAIL,
        },
        "rekorPublicKeyPath": str(node.write_key("log", "log")),
    }
    node.write_policy({double.address: [requirement]})

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            record = await store.pull(double.reference("app:1"))
            await store.check(record, double.reference("app:1"), "")
            node.write_key("log", "another log")
            assert "not signed by the transparency log" in message(
                await failure(store.check(record, double.reference("app:1"), ""))
            )

    run(story)


# GPG


class Pgp:
    """A key of gpg in a home of its own. It is always yesterday for it, so that what expires has done so."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700, parents=True)
        self._home = home
        self._time = int(time.time()) - 24 * 60 * 60
        self._run("--quick-generate-key", "Builder <builder@example.com>", "ed25519", "sign", "never")
        self.public = home / "public.asc"
        self.public.write_bytes(self._run("--armor", "--export"))

    def sign(self, content: bytes) -> bytes:
        return self._run("--sign", given=content)

    def revoke_by_expiry(self) -> None:
        self._time += 60
        self._run("--quick-set-expire", self.fingerprint, "seconds=1")
        self.public.write_bytes(self._run("--armor", "--export"))

    @property
    def fingerprint(self) -> str:
        lines = self._run("--with-colons", "--list-keys").decode().splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    def _run(self, *arguments: str, given: bytes = b"") -> bytes:
        return subprocess.run(
            ["gpg", "--homedir", self._home, "--batch", "--passphrase", "", "--pinentry-mode", "loopback",
             "--quiet", "--faked-system-time", str(self._time), *arguments],
            input=given, capture_output=True, check=True,
        ).stdout  # fmt: skip

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", self._home, "--kill", "all"], check=True, capture_output=True)


@pytest.fixture
def pgp(tmp_path: Path) -> Iterator[Pgp]:
    # the agent's socket has a limit of 107 bytes
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="gpg.") as short:
        made = Pgp(Path(short, "home"))
        try:
            yield made
        finally:
            made.close()


def simple(digest: str, name: str) -> bytes:
    return signer.payload(digest, name, "atomic container signature")


def test_a_gpg_signature_beside_the_registry_lets_an_image_in(
    double: Registry, home: Path, node: Node, pgp: Pgp
) -> None:
    app = double.push("app", "1", [ONE])
    name = double.reference("app:1")
    keyring = node.top / "keys.asc"
    shutil.copy(pgp.public, keyring)
    node.write_policy({double.address: [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(keyring)}]})
    place = node.top / f"lookaside/app@{app.manifest.replace(':', '=')}"
    (node.top / "registries.d/default.yaml").write_text(
        f"docker:\n  {double.address}:\n    lookaside: file://{node.top}/lookaside\n"
    )

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            assert "there is no GPG signature of it" in message(await failure(store.pull(name)))
            place.mkdir()
            bad = pgp.sign(simple(app.manifest, double.reference("app:2")))
            (place / "signature-1").write_bytes(bad)
            (place / "signature-2").write_bytes(b"no signature")
            (place / "signature-3").write_bytes(simple(app.manifest, name))
            spoilt = bytearray(pgp.sign(simple(app.manifest, name)))
            spoilt[len(spoilt) // 2] ^= 1
            (place / "signature-4").write_bytes(bytes(spoilt))
            words = message(await failure(store.pull(name)))
            assert f"signature 1: it is for the name '{double.reference('app:2')}'" in words
            assert words.count("signature ") >= 4 and "signature 3: gpg " in words
            (place / "signature-5").write_bytes(pgp.sign(simple(app.manifest, name)))
            record = await store.pull(name)
            assert len(record.admissions[0].signatures) == 5
            await store.check(record, name, "")
            pgp.revoke_by_expiry()
            shutil.copy(pgp.public, keyring)
            assert "gpg calls it EXPKEYSIG" in message(await failure(store.check(record, name, "")))
            keyring.write_text("no key")
            assert "gpg finds no public key" in message(await failure(store.check(record, name, "")))
        assert list((home / "images/tmp").iterdir()) == []

    run(story)


async def outcome(work: Any) -> Exception | None:
    try:
        await work
    except CrispError as error:
        return error
    return None


def test_a_signature_that_skopeo_made_is_taken(
    double: Registry, home: Path, node: Node, pgp: Pgp, tmp_path: Path
) -> None:
    app = double.push("app", "1", [ONE])
    name = double.reference("app:1")
    _, body = double.manifests["app:1"]
    (tmp_path / "manifest.json").write_bytes(body)
    subprocess.run(
        ["skopeo", "standalone-sign", tmp_path / "manifest.json", name, pgp.fingerprint,
         "--output", tmp_path / "signature"],
        env={**os.environ, "GNUPGHOME": str(pgp._home)}, check=True, capture_output=True,
    )  # fmt: skip
    signature = (tmp_path / "signature").read_bytes()
    data = base64.b64encode(pgp.public.read_bytes()).decode()
    node.write_policy({double.address: [{"type": "signedBy", "keyType": "GPGKeys", "keyData": data}]})
    (node.top / "registries.d/default.yaml").write_text(
        f"default-docker:\n  lookaside: {double.url}/lookaside\n"
    )
    path = f"/lookaside/app@{app.manifest.replace(':', '=')}/signature-"

    def served(request: registry.Request, right: registry.Answer) -> registry.Answer:
        found = request.path == f"{path}1"
        return registry.Answer(body=signature) if found else registry.Answer(status=404)

    double.on("^/lookaside/", served)

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            record = await store.pull(name)
            await store.check(record, name, "")
            assert [request.path for request in double.asked("lookaside")] == [f"{path}1", f"{path}2"]
            await store.remove(record.id)
            double.rules.clear()
            double.on("^/lookaside/", registry.failing(503))
            refused = str(await failure(store.pull(name)))
            assert refused.startswith(f"RegistryUnavailable: signatures of {name}: {double.url}/lookaside/")

    run(story)


def test_without_gpg_its_signatures_cannot_be_checked_and_nothing_comes_in(
    double: Registry, home: Path, node: Node
) -> None:
    app = double.push("app", "1", [ONE])
    place = node.top / f"lookaside/app@{app.manifest.replace(':', '=')}"
    place.mkdir()
    (place / "signature-1").write_bytes(b"x")
    data = base64.b64encode(b"key").decode()
    node.write_policy({"": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": data}]})
    (node.top / "registries.d/a.yaml").write_text(
        f"default-docker:\n  lookaside: file://{node.top}/lookaside\n"
    )

    async def story() -> None:
        async with opened(home, trust=node.settings(gpg="gpg-of-nobody")) as store:
            assert message(await failure(store.pull(double.reference("app:1")))).endswith(
                "is not met: signedBy needs gpg-of-nobody, which is not installed on this node"
            )

    run(story)


# A peer's judgement


def skopeo(double: Registry, node: Node, name: str, target: Path) -> bool:
    """Whether skopeo, which reads the same policies, takes the image."""
    done = subprocess.run(
        ["skopeo", "--policy", node.top / "policy.json", "--registries.d", node.top / "registries.d",
         "copy", "--quiet", "--src-tls-verify=false", f"docker://{double.reference(name)}", f"dir:{target}"],
        capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


IDENTITIES: dict[str, dict[str, str] | None] = {
    "default": None,
    "exact": {"type": "matchExact"},
    "repository": {"type": "matchRepository"},
    "this": {"type": "exactReference", "dockerReference": "ADDRESS/app:1"},
    "other": {"type": "exactRepository", "dockerRepository": "ADDRESS/other"},
    "moved": {"type": "remapIdentity", "prefix": "ADDRESS/app", "signedPrefix": "ADDRESS/other"},
}
CASES = [
    ("default", "app:1", "app:1"),
    ("default", "app:1", "app"),
    ("default", "app@DIGEST", "app:2"),
    ("exact", "app@DIGEST", "app:1"),
    ("exact", "app@DIGEST", "app@DIGEST"),
    ("repository", "app:1", "app:2"),
    ("this", "app:2", "app:1"),
    ("other", "app:1", "other:9"),
    ("other", "app:1", "app:1"),
    ("moved", "app:1", "other:1"),
    ("moved", "app:1", "other:2"),
]


def test_a_peer_judges_the_same_signatures_as_we_do(
    double: Registry, home: Path, node: Node, pgp: Pgp, tmp_path: Path
) -> None:
    app = double.push("app", "1", [ONE])
    double.manifests["app:2"] = double.manifests["app:1"]
    (node.top / "registries.d/default.yaml").write_text(
        f"default-docker:\n  lookaside: file://{node.top}/lookaside\n"
    )
    place = node.top / f"lookaside/app@{app.manifest.replace(':', '=')}"
    place.mkdir()
    data = base64.b64encode(pgp.public.read_bytes()).decode()
    base = {"type": "signedBy", "keyType": "GPGKeys", "keyData": data}
    ours: dict[tuple[str, str, str], bool] = {}
    theirs: dict[tuple[str, str, str], bool] = {}

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            for number, case in enumerate(CASES):
                identity, pulled, signed = case
                name, as_name = pulled.replace("DIGEST", app.manifest), signed.replace("DIGEST", app.manifest)
                written = json.loads(json.dumps(IDENTITIES[identity]).replace("ADDRESS", double.address))
                more = {"signedIdentity": written} if written else {}
                node.write_policy({double.address: [{**base, **more}]})
                signature = pgp.sign(simple(app.manifest, double.reference(as_name)))
                (place / "signature-1").write_bytes(signature)
                ours[case] = await outcome(store.pull(double.reference(name))) is None
                for record in store.all():
                    await store.remove(record.id)  # its signatures with it
                theirs[case] = skopeo(double, node, name, tmp_path / f"copy{number}")

    run(story)
    assert ours == theirs
    assert set(ours.values()) == {True, False}


# containerd's verifiers


def write_verifier(node: Node, name: str, script: str) -> Path:
    directory = node.top / "verifiers"
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def told(words: Sequence[str], pushed: Pushed, double: Registry) -> dict[str, Any]:
    name = double.reference("app:1")
    assert words[:-1] == [
        "-name", name, "-digest", pushed.manifest,
        "-stdin-media-type", "application/vnd.oci.descriptor.v1+json",
    ]  # fmt: skip
    document: dict[str, Any] = json.loads(words[-1])
    return document


def test_verifiers_are_asked_as_containerd_asks_them(double: Registry, home: Path, node: Node) -> None:
    app = double.push("app", "1", [ONE])
    name = double.reference("app:1")
    node.write_policy({}, default=ANYTHING)
    tell = f'printf "%s\\n" "$@" >{node.top}/told; cat >>{node.top}/told; echo why'
    settings = node.settings(verifier_dir=node.top / "verifiers", max_verifiers=2, verifier_timeout=1.0)

    async def story() -> None:
        async with opened(home, trust=settings) as store:
            await store.pull(name)  # no directory, no verifier
            write_verifier(node, "a", tell)
            for _ in range(2):  # also of an image that is there
                (node.top / "told").unlink(missing_ok=True)
                await store.pull(name)
                size = len(double.manifests["app:1"][1])
                assert told((node.top / "told").read_text().splitlines(), app, double) == {
                    "mediaType": MANIFEST,
                    "digest": app.manifest,
                    "size": size,
                }
            second = write_verifier(node, "b", 'echo "not   on my\nwatch"; exit 3')
            assert message(await failure(store.pull(name))) == (
                f"SignatureValidationFailed: image {name}: image verifier {second} refuses it (status 3): "
                "not on my watch"
            )
            write_verifier(node, "b", "exec sleep 60")
            assert "did not end within 1 s" in message(await failure(store.pull(name)))
            second.chmod(0o644)
            assert "cannot be executed" in message(await failure(store.pull(name)))
            write_verifier(node, "b", "exit 0")
            write_verifier(node, "c", "exit 1")  # beyond max_verifiers
            await store.pull(name)

    run(story)


def test_explaining_a_pull_tells_what_the_policy_demands(double: Registry, home: Path, node: Node) -> None:
    node.write_policy({double.address: node.signed})

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            assert (await store.explain(double.reference("app:1")))[-1] == (
                f"signature policy: SigstoreSigned ({node.top}/policy.json: "
                f'transports.docker."{double.address}")'
            )

    run(story)


def test_signatures_are_not_looked_for_where_registries_d_says_no(
    double: Registry, home: Path, node: Node
) -> None:
    app = double.push("app", "1", [ONE])
    sign(double, app.manifest, "app:1")
    node.write_policy({double.address: node.signed})
    (node.top / "registries.d/a.yaml").write_text(
        f"docker:\n  {double.address}:\n    use-sigstore-attachments: false\n"
    )

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            assert "there is no sigstore signature" in message(
                await failure(store.pull(double.reference("app:1")))
            )
            assert double.asked(r"\.sig") == []

    run(story)


def test_a_registry_in_trouble_is_not_taken_for_one_without_signatures(
    double: Registry, home: Path, node: Node
) -> None:
    app = double.push("app", "1", [ONE])
    sign(double, app.manifest, "app:1")
    node.write_policy({double.address: node.signed})
    double.on(r"\.sig$", registry.failing(503))

    async def story() -> None:
        async with opened(home, trust=node.settings()) as store:
            refused = await failure(store.pull(double.reference("app:1")))
            assert str(refused).startswith("RegistryUnavailable: signatures of ")
            assert content(home) == []

    run(story)


def test_verifiers_hear_what_the_name_leads_to_now(
    double: Registry, home: Path, node: Node, tmp_path: Path
) -> None:
    """Of an image that is there: out of an archive, or under a tag that moved to another of its digests."""
    app = double.push("app", "1", [ONE])
    _, body = double.manifests["app:1"]
    platform = {"os": "linux", "architecture": registry.ARCHITECTURE}
    inner = {"mediaType": MANIFEST, "digest": app.manifest, "size": len(body), "platform": platform}
    index = double.put_manifest(
        "app", "2", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}, INDEX
    )
    name = double.reference("app:1")
    layout = write_layout(double, tmp_path / "layout", entry(double, app.manifest, name))
    node.write_policy({}, default=ANYTHING)
    write_verifier(node, "a", f"cat >{node.top}/told")

    async def pulled(store: Any, tag: str) -> dict[str, Any]:
        (node.top / "told").unlink(missing_ok=True)
        await store.pull(double.reference(tag))
        heard: dict[str, Any] = json.loads((node.top / "told").read_text())
        return heard

    async def story() -> None:
        async with opened(home, trust=node.settings(verifier_dir=node.top / "verifiers")) as store:
            await store.import_archive(layout)
            plain = {"mediaType": MANIFEST, "digest": app.manifest, "size": len(body)}
            assert await pulled(store, "app:1") == plain
            size = len(double.manifests["app:2"][1])
            assert await pulled(store, "app:2") == {"mediaType": INDEX, "digest": index, "size": size}
            double.manifests["app:1"] = double.manifests["app:2"]
            assert await pulled(store, "app:1") == {"mediaType": INDEX, "digest": index, "size": size}
            double.manifests["app:1"] = double.manifests[f"app@{app.manifest}"]
            assert await pulled(store, "app:1") == plain

    run(story)
