"""The store's start: what is kept and what goes, decided from what was seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from oci.image import ImageConfig
from oci.workload import ImageId
from shim.images.layout import Layout
from shim.images.lending import stack_order
from shim.images.recovery import Plan, Seen, plan
from shim.records import ImageRecord, LayerRecord

LAYOUT = Layout(Path("/s"))
A, B, C, D = ("sha256:" + letter * 64 for letter in "abcd")


def layer(diff_id: str) -> LayerRecord:
    return LayerRecord(diff_id=diff_id, form="erofs", size=1, inodes=1, created_at=1)


def image(letter: str, *layers: str, tags: tuple[str, ...] = (), created_at: int = 1) -> ImageRecord:
    return ImageRecord(
        id=ImageId("sha256:" + letter * 64),
        tags=tags,
        digests=(),
        manifest_digest="sha256:" + "f" * 64,
        config=ImageConfig(),
        layers=layers,
        size=1,
        created_at=created_at,
    )


def seen(
    *whole: str, files: tuple[str, ...] = (), trees: tuple[str, ...] = (), documents: tuple[str, ...] = ()
) -> Seen:
    return Seen(
        whole=frozenset(whole),
        files=frozenset(files or whole),
        trees=frozenset(trees),
        documents=frozenset(documents),
    )


def run(
    found: Seen, images: tuple[ImageRecord, ...], layers: tuple[str, ...], lent: tuple[str, ...] = ()
) -> Plan:
    return plan(
        found,
        {record.id: record for record in images},
        {diff_id: layer(diff_id) for diff_id in layers},
        lent=frozenset(lent),
        layout=LAYOUT,
    )


ONE = image("1", A, B)
DOCUMENTS = (ONE.id, ONE.manifest_digest)


def test_nothing_is_done_to_a_store_that_is_whole() -> None:
    assert run(seen(A, B, documents=DOCUMENTS, trees=(A[7:31],)), (ONE,), (A, B)) == Plan()


def test_files_without_a_record_go() -> None:
    found = seen(A, B, files=(A, B, C), trees=("x" * 24,), documents=(*DOCUMENTS, D))
    assert run(found, (ONE,), (A, B)) == Plan(files=(C,), trees=("x" * 24,), documents=frozenset({D}))


def test_an_image_without_one_of_its_layers_goes_and_its_other_layers_stay_for_the_next_pull() -> None:
    found = seen(A, documents=DOCUMENTS)
    assert run(found, (ONE,), (A, B)) == Plan(
        images=(ONE,), layers=(layer(B),), documents=frozenset(DOCUMENTS)
    )


def test_an_image_without_its_configuration_goes() -> None:
    found = seen(A, B, documents=(ONE.manifest_digest,))
    assert run(found, (ONE,), (A, B)) == Plan(images=(ONE,), documents=frozenset({ONE.manifest_digest}))


def test_a_layer_that_nobody_wants_goes_unless_it_is_lent() -> None:
    found = seen(A, B, C, D, documents=DOCUMENTS)
    assert run(found, (ONE,), (A, B, C, D), lent=(C,)) == Plan(layers=(layer(D),), files=(D,))


def test_a_tag_that_two_images_have_belongs_to_the_newer() -> None:
    old = image("2", A, tags=("a:1", "b:1"), created_at=1)
    new = image("3", A, tags=("a:1",), created_at=2)
    found = seen(A, documents=(old.id, new.id, old.manifest_digest))
    assert run(found, (old, new), (A,)) == Plan(renamed=(replace(old, tags=("b:1",)),))


def test_a_layer_that_an_image_has_twice_is_stacked_once_at_its_upper_place() -> None:
    assert stack_order((A, B, A, C)) == (B, A, C)
