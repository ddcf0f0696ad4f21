"""registries.d: what is refused in it, by file and key."""

from __future__ import annotations

import pytest

from oci.errors import BadInput
from oci.reference import parse
from oci.trust.lookaside import parse_places


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("docker: [", r"^a: not YAML: "),
        ("- x", r"^a: only docker and default-docker are known"),
        ("dokcer: {}", r"^a: only docker and default-docker are known"),
        ("docker: 1", r"^a: docker is not a map$"),
        ("docker: {x: 1}", r"^a: docker\.x is not a map$"),
        ("docker: {x: {lookasid: y}}", r"^a: docker\.x: unknown key 'lookasid'$"),
        ("docker: {x: {lookaside: /a}}", r"^a: docker\.x\.lookaside is not a URL of file, http or https$"),
        ("docker: {x: {use-sigstore-attachments: 1}}", r"use-sigstore-attachments is not true or false$"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_places([("a", text.encode())])


def test_what_is_said_twice_is_refused_with_both_files() -> None:
    for text, key in (("docker: {x: {}}", r"docker\.x"), ("default-docker: {}", "default-docker")):
        with pytest.raises(BadInput, match=rf"^b: {key} is given in a already$"):
            parse_places([("a", text.encode()), ("b", text.encode())])


def test_nothing_is_said_by_no_file_and_old_words_are_known() -> None:
    places = parse_places([("a", b""), ("b", b"docker: {x.example: {sigstore: 'http://s/'}}")])
    assert places.lookaside(parse("busybox")) == ""
    assert places.lookaside(parse("x.example/a/b")) == "http://s/"
