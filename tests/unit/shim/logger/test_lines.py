"""Output becomes lines that the reader joins to the same output."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oci import logline
from shim.logger.lines import LONGEST, lines, stamp

AT = stamp(1_795_640_400_000_000_042)


def joined(text: bytes) -> bytes:
    joiner = logline.Joiner()
    found = [piece for line in text.split(b"\n")[:-1] for piece in joiner.feed(logline.parse(line))]
    return b"".join(piece.content for piece in [*found, *joiner.flush()])


def test_a_time_has_nine_digits_and_is_utc() -> None:
    assert AT == b"2026-11-25T21:00:00.000000042Z"
    assert logline.nanoseconds(AT) == 1_795_640_400_000_000_042


def test_full_lines_and_an_unfinished_one_are_told_apart() -> None:
    assert lines(b"one\n\ntwo", b"stderr", b"T") == b"T stderr F one\nT stderr F \nT stderr P two\n"


@given(st.lists(st.binary(max_size=60), max_size=6), st.integers(1, 9))
def test_the_reader_gets_what_was_written_however_it_came(pieces: list[bytes], length: int) -> None:
    text = b"".join(lines(piece, b"stdout", AT) for piece in pieces)
    assert joined(text) == b"".join(pieces)


def test_long_lines_are_cut_where_the_format_needs_it() -> None:
    data = b"x" * (2 * LONGEST + 5) + b"\n" + b"y" * (LONGEST + 1)
    made = lines(data, b"stdout", AT)
    assert joined(made) == data
    assert max(len(line) for line in made.split(b"\n")) <= LONGEST + len(AT) + len(b" stdout P ")
