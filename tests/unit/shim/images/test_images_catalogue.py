"""Names of images: what each form means, and who keeps a tag."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oci.errors import BadInput
from oci.image import ImageConfig
from oci.reference import parse
from oci.workload import ImageId
from shim.images.catalogue import find, merge, names_of
from shim.records import ImageRecord


def image(letters: str, *names: str, created_at: int = 1) -> ImageRecord:
    return ImageRecord(
        id=ImageId("sha256:" + (letters * 64)[:64]),
        tags=tuple(name for name in names if "@" not in name),
        digests=tuple(name for name in names if "@" in name),
        manifest_digest="",
        config=ImageConfig(),
        layers=(),
        size=1,
        created_at=created_at,
    )


DIGEST = "sha256:" + "9" * 64
BUSYBOX = image("ab", "docker.io/library/busybox:latest", "a.io/x:1", f"docker.io/library/busybox@{DIGEST}")
CAFE = image("cafe")
CAFF = image("caff", "docker.io/library/cafe:latest")
ALL = {record.id: record for record in (BUSYBOX, CAFE, CAFF)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("busybox", BUSYBOX),
        ("busybox:latest", BUSYBOX),
        ("docker.io/library/busybox", BUSYBOX),
        ("a.io/x:1", BUSYBOX),
        ("a.io/x", None),
        (f"busybox@{DIGEST}", BUSYBOX),
        (f"busybox:other@{DIGEST}", BUSYBOX),
        (f"other@{DIGEST}", None),
        (BUSYBOX.id, BUSYBOX),
        (BUSYBOX.id[7:], BUSYBOX),
        ("abab", BUSYBOX),
        ("sha256:abab", BUSYBOX),
        ("caf", None),
        ("cafec", CAFE),
        ("cafe", CAFF),  # a name wins over a prefix
        (DIGEST, None),
        ("no such image!", None),
        ("ABAB", None),
    ],
)
def test_every_form_of_a_name_finds_its_image(name: str, expected: ImageRecord | None) -> None:
    if name == "caf":
        with pytest.raises(BadInput, match="image: caf is ambiguous, it begins the ids of 2 images"):
            find(name, ALL)
    else:
        assert find(name, ALL) == expected


def test_an_empty_name_is_bad_input() -> None:
    with pytest.raises(BadInput, match="image: empty name"):
        find("", ALL)


def test_a_new_image_takes_its_tag_from_the_old_one_which_keeps_its_digest() -> None:
    new = image("12", "a.io/x:1", "a.io/x@" + DIGEST)
    record, losers = merge(ALL, new, pinned=())
    assert record == new
    assert losers == [replace(BUSYBOX, tags=("docker.io/library/busybox:latest",))]


def test_an_image_that_is_there_gets_the_new_names_beside_its_own() -> None:
    again = replace(
        BUSYBOX, tags=("b.io/y:2", "a.io/x:1"), digests=("b.io/y@" + DIGEST,), created_at=9, size=5
    )
    record, losers = merge(ALL, again, pinned=("b.io/*",))
    assert record == replace(
        BUSYBOX,
        tags=("docker.io/library/busybox:latest", "a.io/x:1", "b.io/y:2"),
        digests=(f"docker.io/library/busybox@{DIGEST}", f"b.io/y@{DIGEST}"),
        size=5,
        pinned=True,
    )
    assert losers == []


def test_an_image_that_loses_its_pinned_name_is_no_longer_pinned() -> None:
    pinned = replace(image("77", "p.io/base:1"), pinned=True)
    record, losers = merge({pinned.id: pinned}, image("78", "p.io/base:1"), pinned=("p.io/*",))
    assert record.pinned
    assert losers == [replace(pinned, tags=(), pinned=False)]


def test_a_pull_by_digest_gives_no_tag() -> None:
    assert names_of(parse("a.io/x:1"), DIGEST) == (("a.io/x:1",), (f"a.io/x@{DIGEST}",))
    assert names_of(parse(f"a.io/x:1@{DIGEST}"), DIGEST) == ((), (f"a.io/x@{DIGEST}",))
