"""The examples of docs/trust.md are what they say."""

from __future__ import annotations

import re
from pathlib import Path

from oci.reference import parse
from oci.trust.lookaside import parse_places, signature_url
from oci.trust.policy import parse_policy
from oci.trust.requirements import AcceptAnything, Reject, SignedBy, SigstoreSigned

PAGE = (Path(__file__).resolve().parents[4] / "docs/trust.md").read_text(encoding="utf-8")


def example(name: str) -> bytes:
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", PAGE, re.S)
    assert found is not None
    return found[1].encode()


def test_the_policy_of_the_page_demands_what_the_page_says() -> None:
    policy = parse_policy(example("policy.json"), where="p")
    found = {
        name: [type(one) for one in policy.of_registry(parse(name)).requirements]
        for name in ("registry.k8s.io/pause:3", "a.example/x", "busybox", "someone/x", "ghcr.io/us/app:1")
    }
    assert found == {
        "registry.k8s.io/pause:3": [AcceptAnything],
        "a.example/x": [SigstoreSigned],
        "busybox": [SignedBy],
        "someone/x": [Reject],
        "ghcr.io/us/app:1": [SigstoreSigned],
    }
    inside = policy.of_archive("oci-archive", "/var/lib/images/a.tar").requirements
    assert (inside, policy.of_archive("oci-archive", "/tmp/a.tar").requirements) == (
        (AcceptAnything(),),
        (Reject(),),
    )


def test_the_places_of_the_page_are_read() -> None:
    places = parse_places([("r.yaml", example("registries.yaml"))])
    found = {
        name: (places.lookaside(parse(name)), places.attachments(parse(name)))
        for name in ("busybox", "someone/x", "registry.example/x")
    }
    local = "file:///var/lib/containers/sigstore"
    assert found == {
        "busybox": ("https://signatures.example/store", True),
        "someone/x": (local, True),
        "registry.example/x": (local, False),
    }
    assert signature_url("https://signatures.example/store/", "library/busybox", f"sha256:{'1' * 64}", 1) == (
        f"https://signatures.example/store/library/busybox@sha256={'1' * 64}/signature-1"
    )
