"""Manifests and indexes as registries really send them, and the choice of a platform."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci import manifest
from oci.errors import BadInput
from oci.manifest import Descriptor, Index, Manifest, Platform, choose, parse_document

DIGEST = "sha256:" + "1" * 64
AMD64 = Platform(architecture="amd64")
ARM64 = Platform(architecture="arm64")


def descriptor(kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": DIGEST, "size": 5, **more}


def image(**more: Any) -> bytes:
    layer = "application/vnd.oci.image.layer.v1.tar+gzip"
    document = {
        "schemaVersion": 2,
        "mediaType": manifest.OCI_MANIFEST,
        "config": descriptor(manifest.OCI_CONFIG),
        "layers": [descriptor(layer)],
        **more,
    }
    return json.dumps(document).encode()


def index(*platforms: str, **more: Any) -> Index:
    entries = []
    for number, text in enumerate(platforms):
        entry = descriptor(manifest.OCI_MANIFEST, digest=f"sha256:{number:064x}")
        if text:
            words = text.split("/")
            entry["platform"] = dict(zip(("os", "architecture", "variant"), words, strict=False))
        entries.append({**entry, **more})
    body = json.dumps({"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": entries}).encode()
    found = parse_document(body)
    assert isinstance(found, Index)
    return found


def chosen(found: Index, node: Platform) -> list[int]:
    return [int(entry.digest[7:], 16) for entry in choose(found, node)]


def test_a_manifest_is_read_whole() -> None:
    assert parse_document(image(annotations={"a": "b"})) == Manifest(
        media_type=manifest.OCI_MANIFEST,
        config=Descriptor(media_type=manifest.OCI_CONFIG, digest=DIGEST, size=5),
        layers=(Descriptor(media_type="application/vnd.oci.image.layer.v1.tar+gzip", digest=DIGEST, size=5),),
        annotations={"a": "b"},
    )


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/json; charset=utf-8", manifest.OCI_INDEX]
)
def test_the_documents_own_type_decides_over_a_wrong_content_type(content_type: str) -> None:
    assert isinstance(parse_document(image(), content_type=content_type), Manifest)


def test_without_a_type_of_its_own_the_header_or_the_members_decide() -> None:
    bare = json.loads(image())
    del bare["mediaType"]
    assert isinstance(parse_document(json.dumps(bare).encode()), Manifest)
    found = parse_document(
        json.dumps(bare).encode(), content_type=f"{manifest.DOCKER_MANIFEST}; charset=utf-8"
    )
    assert found.media_type == manifest.DOCKER_MANIFEST
    listed = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    assert isinstance(parse_document(listed, content_type="text/plain"), Index)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>captive portal</html>", "not JSON, it begins '<html>captive portal</html>'"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema 1 is not supported"),
        (b'{"schemaVersion": 3}', "schemaVersion is not 2"),
        (b'{"schemaVersion": 2, "mediaType": ["x"]}', "mediaType is not a text"),
        (image(mediaType="application/x"), "'application/x' is neither an image manifest nor an index"),
        (image(config=descriptor("application/vnd.cncf.helm.config.v1+json")), "artifact of type .*helm"),
        (
            image(config=descriptor("application/vnd.oci.empty.v1+json"), artifactType="application/x-sbom"),
            "artifact of type 'application/x-sbom'",
        ),
        (image(layers=[descriptor("application/vnd.x")]), r"layers\[0\].mediaType 'application/vnd.x'"),
        (
            image(layers=[descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")]),
            "it is encrypted",
        ),
        (image(layers={}), "layers is not a list"),
        (image(layers=[7]), r"layers\[0\]: not an object"),
        (image(config=descriptor(manifest.OCI_CONFIG, size=-1)), "config.size"),
        (image(config=descriptor(manifest.OCI_CONFIG, size=True)), "config.size"),
        (image(config=descriptor(manifest.OCI_CONFIG, digest="sha256:../../etc")), "config.digest"),
        (image(annotations=[1]), "annotations is not a map of texts"),
        (b'{"schemaVersion": 2, "artifactType": "a/b", "blobs": []}', "artifact of type 'a/b'"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(body: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why) as refused:
        parse_document(body, what="image x")
    assert str(refused.value).startswith("image x: ")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda v: (
            st.lists(v)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "schemaVersion",
                        "mediaType",
                        "config",
                        "layers",
                        "manifests",
                        "digest",
                        "size",
                        "platform",
                    ]
                ),
                v,
            )
        ),
    )
)
def test_any_json_is_an_image_or_bad_input(value: Any) -> None:
    if isinstance(value, dict):
        value = {**value, "schemaVersion": 2}
    try:
        parse_document(json.dumps(value).encode())
    except BadInput:
        return


@pytest.mark.parametrize(
    ("platforms", "node", "expected"),
    [
        (("linux/arm64", "linux/amd64"), AMD64, [1]),
        (("linux/amd64/v3", "linux/amd64/v2", "linux/amd64"), AMD64, [2]),
        (
            ("linux/amd64", "linux/amd64/v3", "linux/amd64/v2"),
            Platform(architecture="amd64", variant="v3"),
            [1, 2, 0],
        ),
        (("linux/x86_64",), AMD64, [0]),
        (("linux/386", "linux/amd64"), AMD64, [1, 0]),
        (("linux/arm64/v8",), ARM64, [0]),
        (("linux/arm/v6", "linux/arm/v7", "linux/arm"), ARM64, [1, 2, 0]),
        (("linux/arm/v7", "linux/arm/v6"), Platform(architecture="arm", variant="v6"), [1]),
        (("windows/amd64", "linux/amd64"), AMD64, [1]),
        (("", "linux/amd64"), AMD64, [1, 0]),
        (("", ""), AMD64, [0, 1]),
        (("linux/riscv64",), Platform(architecture="riscv64"), [0]),
    ],
)
def test_the_best_platform_comes_first(
    platforms: tuple[str, ...], node: Platform, expected: list[int]
) -> None:
    assert chosen(index(*platforms), node) == expected


def test_without_a_match_the_error_lists_what_there_is() -> None:
    with pytest.raises(BadInput, match=r"no image for linux/amd64; there is linux/arm64, windows/amd64"):
        choose(index("windows/amd64", "linux/arm64/v8"), AMD64)


def test_attestations_are_no_images() -> None:
    found = index("unknown/unknown", "linux/amd64")
    assert chosen(found, AMD64) == [1]
    marked = index("linux/amd64", annotations={"vnd.docker.reference.type": "attestation-manifest"})
    with pytest.raises(BadInput, match="there is no image at all"):
        choose(marked, AMD64)


@pytest.mark.parametrize(
    ("found", "node", "good"),
    [
        (Platform(architecture="amd64"), AMD64, True),
        (Platform(architecture="386"), AMD64, True),
        (Platform(architecture="amd64", variant="v3"), AMD64, False),
        (Platform(architecture="arm64"), AMD64, False),
        (Platform(os="windows", architecture="amd64"), AMD64, False),
        (Platform(os="", architecture=""), AMD64, True),
    ],
)
def test_an_image_of_another_platform_is_refused(found: Platform, node: Platform, good: bool) -> None:
    if good:
        manifest.check_platform(found, node, what="image x")
    else:
        with pytest.raises(BadInput, match=f"image x: the image is for {found}, this node runs {node}"):
            manifest.check_platform(found, node, what="image x")
