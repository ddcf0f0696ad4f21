"""The scanner of positions against tomllib: the same keys, on the lines on which they were written."""

from __future__ import annotations

import json
import string
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.positions import KeyPath, key_lines


def paths_of(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """Every key and element of what tomllib read."""
    found: set[KeyPath] = set()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found |= {(*path, key)} | paths_of(inner, (*path, key))
    return found


EVERYTHING = r'''# comment = 1
top = "a # b = 2 [x]"   # = not a key
'quoted key' = 1
"esc\u0061ped \"key\"" = 2
dotted . deep . "er" = { inline = [1, 2], "in.ner" = { x = 1 } }
many = [
  "one", # ]
  'two ] }', [3,
    4], { k = 5 },
  """six
  [seven]
  eight = 9 \""" still"""",
]
literal = \'\'\'
[not.a.table]
x = 1'\'\'\'
date = 1979-05-27 07:32:00
[table]  # [comment]
a = true
[ table . sub ]
b = -1.5e3
[[list]]
c = 1
[list.inner]
d = 2
[[list.deeper]]
e = 3
[[list.deeper]]
e = 4
[[list]]
c = 5
[list.inner]
d = 6
[empty]
'''.replace("\\'", "'")

LINES = {
    ("top",): 2,
    ("quoted key",): 3,
    ('escaped "key"',): 4,
    ("dotted",): 5,
    ("dotted", "deep", "er", "in.ner", "x"): 5,
    ("many",): 6,
    ("many", 0): 7,
    ("many", 1): 8,
    ("many", 2, 1): 9,
    ("many", 3, "k"): 9,
    ("many", 4): 10,
    ("literal",): 14,
    ("date",): 17,
    ("table",): 18,
    ("table", "a"): 19,
    ("table", "sub"): 20,
    ("table", "sub", "b"): 21,
    ("list",): 22,
    ("list", 0): 22,
    ("list", 0, "c"): 23,
    ("list", 0, "inner", "d"): 25,
    ("list", 0, "deeper", 1): 28,
    ("list", 0, "deeper", 1, "e"): 29,
    ("list", 1): 30,
    ("list", 1, "inner", "d"): 33,
    ("empty",): 34,
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_kind_of_key_is_found_on_its_line(newline: str) -> None:
    text = EVERYTHING.replace("\n", newline)
    lines = key_lines(text)
    assert set(lines) == paths_of(tomllib.loads(text))
    assert {path: lines[path] for path in LINES} == LINES


def test_an_empty_text_has_no_keys() -> None:
    assert (key_lines(""), key_lines("\n# only this"), key_lines("  ")) == ({}, {}, {})


keys = st.text(alphabet=string.ascii_lowercase + ' .#="[]é', min_size=1, max_size=4)
scalars = st.sampled_from(
    [
        "1", "-0.5", "true", "1979-05-27", '"a # [b] = \\" {c}"', "'x = [1]'",
        '"""\na = 1\n[b]\n\\""""""', "'''\n[c]'''''",
    ]
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
)


def write(value: Any, breaks: bool) -> str:
    if isinstance(value, list):
        gap = "\n# ] , \n" if breaks else " "
        return f"[{gap}{f',{gap}'.join(write(item, breaks) for item in value)}{gap}]"
    if isinstance(value, dict):
        return (
            f"{{ {', '.join(f'{json.dumps(key)} = {write(item, breaks)}' for key, item in value.items())} }}"
        )
    return str(value)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["[{}]", "[[{}]]"]),
            st.lists(keys, min_size=1, max_size=3),
            st.dictionaries(keys, values),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_the_scanner_finds_the_keys_that_tomllib_finds_where_they_were_written(
    tables: list[tuple[str, list[str], dict[str, Any]]], breaks: bool
) -> None:
    text = ""
    written: list[int] = []
    for header, names, content in tables:
        longer = text + header.format(" . ".join(map(json.dumps, names))) + "  # [[x]]\n"
        lines = []
        for key, value in content.items():
            lines.append(longer.count("\n") + 1)
            longer += f"  {json.dumps(key)}={write(value, breaks)} # y = 1\n\n"
        try:
            tomllib.loads(longer)
        except tomllib.TOMLDecodeError:
            continue  # a table that was there before: such a document never reaches the scanner
        text = longer
        written += lines
    found = key_lines(text)
    assert set(found) == paths_of(tomllib.loads(text))
    assert set(written) <= set(found.values())
