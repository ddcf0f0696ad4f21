"""Which line a member of a JSON text stands on."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from config.positions import KeyPath
from config.positions_json import key_lines

DOCUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=12,
    ),
    max_size=4,
)


def test_members_and_elements_have_the_lines_on_which_they_begin() -> None:
    text = '{\n"a": [1,\n 2, {"x": {}}, []],\n "b\\"": {"c": null,\n"d": ""}}'
    assert key_lines(text) == {
        ("a",): 2, ("a", 0): 2, ("a", 1): 3, ("a", 2): 3, ("a", 2, "x"): 3, ("a", 3): 3,
        ('b"',): 4, ('b"', "c"): 4, ('b"', "d"): 5,
    }  # fmt: skip


@given(DOCUMENTS)
def test_everything_that_json_reads_has_a_place(document: dict[str, Any]) -> None:
    """Printed one member or element a line, the places are counted while walking."""
    text = json.dumps(document, indent=1)
    found = key_lines(text)
    assert set(found) == set(_paths(document, ()))
    lines = text.splitlines()
    for path, line in found.items():
        if isinstance(path[-1], str):
            assert lines[line - 1].strip().startswith(json.dumps(path[-1]))


def _paths(value: Any, path: KeyPath) -> list[KeyPath]:
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    return [deeper for key, inner in items for deeper in ((*path, key), *_paths(inner, (*path, key)))]
