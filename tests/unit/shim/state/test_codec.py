"""Records survive JSON, and what a release does not know survives the release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.workload import PodId, PodMetadata, PodSpec
from shim.records import PinnedNamespaces, PodRecord, PodState, ProcessRef
from shim.state.codec import Undecodable, decode, encode, merge


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    number: int
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner
    maybe: Inner | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    table: Mapping[str, str] = field(default_factory=dict)
    colour: Colour = Colour.RED
    ratio: float = 0.0


inners = st.builds(Inner, number=st.integers(), words=st.tuples(st.text(), st.text()))
outers = st.builds(
    Outer,
    inner=inners,
    maybe=st.none() | inners,
    pairs=st.lists(st.tuples(st.text(), st.text())).map(tuple),
    table=st.dictionaries(st.text(), st.text()),
    ratio=st.floats(allow_nan=False),
)


@given(outers)
def test_any_record_comes_back_equal(record: Outer) -> None:
    assert decode(Outer, json.loads(json.dumps(encode(record)))) == record


def test_defaults_are_left_out() -> None:
    assert encode(Outer(inner=Inner(number=1))) == {"inner": {"number": 1}}


def test_a_pod_record_comes_back_equal() -> None:
    record = PodRecord(
        id=PodId("a" * 64),
        realm="kubelet",
        spec=PodSpec(
            metadata=PodMetadata(name="web", namespace="default", uid="u", attempt=2),
            sysctls={"net.core.somaxconn": "1024"},
        ),
        state=PodState.READY,
        created_at=17,
        handler="runc",
        namespaces=PinnedNamespaces(network="/run/netns/x"),
        init=ProcessRef(pid=7, start_time=9),
    )
    assert decode(PodRecord, json.loads(json.dumps(encode(record)))) == record


def test_members_of_a_newer_release_survive_a_rewrite_by_this_one() -> None:
    newer = {"inner": {"number": 1, "weight": 3}, "maybe": {"number": 2}, "shape": "round"}
    known = decode(Outer, newer)
    changed = encode(Outer(inner=Inner(number=5), colour=known.colour))
    assert merge(Outer, newer, changed) == {"inner": {"number": 5, "weight": 3}, "shape": "round"}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "Outer.inner: missing"),
        ({"inner": 3}, "Outer.inner: expected an object"),
        ({"inner": {"number": "1"}}, "Outer.inner.number: expected int, found str"),
        ({"inner": {"number": True}}, "Outer.inner.number: expected int, found bool"),
        ({"inner": {"number": 1}, "colour": "blue"}, "Outer.colour: 'blue' is not one of"),
        ({"inner": {"number": 1, "words": "ab"}}, "Outer.inner.words: expected an array"),
        ({"inner": {"number": 1}, "pairs": [["a"]]}, r"Outer.pairs\[0\]: expected 2 items, found 1"),
        ([], "Outer: expected an object"),
    ],
)
def test_what_has_another_shape_is_refused_by_the_name_of_the_member(document: Any, words: str) -> None:
    with pytest.raises(Undecodable, match=words):
        decode(Outer, document)
