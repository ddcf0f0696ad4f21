"""References: short and long forms mean one image, and what is no reference says why."""

from __future__ import annotations

import pytest

from oci.errors import BadInput
from oci.reference import Reference, is_digest, parse

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.35", "docker.io/library/busybox:1.35"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox:1", "docker.io/library/busybox:1"),
        ("registry-1.docker.io/a/b", "docker.io/a/b:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("127.0.0.1:5000/a/b/c:T_1.x-y", "127.0.0.1:5000/a/b/c:T_1.x-y"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("Host/a", "Host/a:latest"),
        (
            "gcr.io/k8s-staging-cri-tools/test-image-tag:test",
            "gcr.io/k8s-staging-cri-tools/test-image-tag:test",
        ),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"quay.io/a/b:1@{DIGEST}", f"quay.io/a/b@{DIGEST}"),
        (f"host:5000/a__b/c-d.e@{DIGEST}", f"host:5000/a__b/c-d.e@{DIGEST}"),
        ("host:5000", "docker.io/library/host:5000"),
        ("deadbeef", "docker.io/library/deadbeef:latest"),
    ],
)
def test_every_form_has_one_canonical_spelling(text: str, canonical: str) -> None:
    assert parse(text).canonical == canonical
    assert parse(canonical).canonical == canonical


def test_a_digest_decides_and_the_tag_is_remembered() -> None:
    found = parse(f"a.io/b:1@{DIGEST}")
    assert found == Reference(registry="a.io", repository="b", tag="1", digest=DIGEST)
    assert (found.target, found.name, str(found)) == (DIGEST, "a.io/b", f"a.io/b:1@{DIGEST}")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty image reference"),
        ("A", "names are lower case"),
        ("a.io/B/c", "names are lower case"),
        ("a:b:c", "is not a tag"),
        ("a:", "is not a tag"),
        ("a: b", "is not a tag"),
        ("a\nb", "is not a repository name"),
        ("../etc", "is not a registry host"),
        ("a.io/../etc", "is not a repository name"),
        ("a.io//b", "is not a repository name"),
        ("a.io/", "is not a repository name"),
        ("-a", "is not a repository name"),
        ("a;b", "is not a repository name"),
        ("h_st.io/a", "is not a registry host"),
        ("user@host/a", "is not a digest"),
        ("a@sha256:12", "is not a digest"),
        ("a@sha512:" + "ab" * 64, "only sha256 digests"),
        ("a@sha256:" + "AB" * 32, "only sha256 digests"),
        (DIGEST, "is an image id"),
        ("ab" * 32, "is an image id"),
        ("a.io/" + "b" * 300, "name longer than 255"),
        ("a" * 2000, "the limit is 1024"),
        ("a:" + "t" * 129, "is not a tag"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=r"^image: ") as refused:
        parse(text)
    assert why in str(refused.value)


def test_only_whole_lower_case_sha256_is_a_digest() -> None:
    assert [is_digest(text) for text in (DIGEST, DIGEST[:-1], DIGEST.upper(), DIGEST + "\n", "ab" * 32)] == [
        True, False, False, False, False,
    ]  # fmt: skip
