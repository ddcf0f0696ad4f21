"""Lines of container logs: parsed whole, joined from their pieces."""

from __future__ import annotations

import pytest

from oci.errors import BadInput
from oci.logline import PIECE_LIMIT, Joiner, LogLine, Output, nanoseconds, parse

TIME = b"2026-01-31T12:00:00.123456789Z"


def line(tag: str, content: bytes, *, stream: str = "stdout", time: bytes = TIME) -> LogLine:
    return LogLine(time=time, stream=stream, partial=tag == "P", content=content)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (TIME + b" stdout F hello world", line("F", b"hello world")),
        (TIME + b" stderr P half", line("P", b"half", stream="stderr")),
        (TIME + b" stdout F ", line("F", b"")),
        (TIME + b" stdout F", line("F", b"")),
        (TIME + b" stdout F  two blanks", line("F", b" two blanks")),
        (TIME + b" stdout F:later:tags x", line("F", b"x")),
        (TIME + b" stdout F \xff\x00\r", line("F", b"\xff\x00\r")),
        (
            b"2026-01-31T13:00:00.1+01:00 stdout F x",
            line("F", b"x", time=b"2026-01-31T13:00:00.1+01:00"),
        ),
    ],
)
def test_a_line_is_time_stream_tag_and_content(raw: bytes, expected: LogLine) -> None:
    assert parse(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello",
        b"yesterday stdout F x",
        TIME + b" stdlog F x",
        TIME + b" stdout G x",
        TIME + b" stdoutF x",
        b" " + TIME + b" stdout F x",
    ],
)
def test_what_no_runtime_writes_is_refused(raw: bytes) -> None:
    with pytest.raises(BadInput, match="log line"):
        parse(raw)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1970-01-01T00:00:00Z", 0),
        (b"1970-01-01T00:00:00.000000001Z", 1),
        (b"1970-01-01T01:00:00.5+01:00", 500_000_000),
        (b"1969-12-31T23:30:00-00:30", 0),
        (b"2026-01-31T12:00:00.123456789Z", 1769860800_123456789),
    ],
)
def test_times_become_nanoseconds(text: bytes, expected: int) -> None:
    assert nanoseconds(text) == expected


@pytest.mark.parametrize("text", [b"", b"noon", b"2026-13-01T00:00:00Z", b"2026-01-31T12:00:00"])
def test_what_is_no_time_is_refused(text: bytes) -> None:
    with pytest.raises(BadInput, match="not RFC 3339"):
        nanoseconds(text)


def test_pieces_of_a_line_are_joined_and_keep_the_time_of_the_first() -> None:
    joiner = Joiner()
    later = b"2026-01-31T12:00:01Z"
    fed = [
        *joiner.feed(line("P", b"one ")),
        *joiner.feed(line("P", b"two ", time=later)),
        *joiner.feed(line("F", b"three", time=later)),
    ]
    assert fed == [Output(time=TIME, stream="stdout", content=b"one two three\n")]


def test_streams_are_joined_apart() -> None:
    joiner = Joiner()
    fed = [
        *joiner.feed(line("P", b"out ")),
        *joiner.feed(line("F", b"error", stream="stderr")),
        *joiner.feed(line("F", b"put")),
    ]
    assert fed == [
        Output(time=TIME, stream="stderr", content=b"error\n"),
        Output(time=TIME, stream="stdout", content=b"out put\n"),
    ]


def test_output_that_ends_without_a_newline_is_given_without_one() -> None:
    joiner = Joiner()
    assert list(joiner.feed(line("P", b"prompt> "))) == []
    assert list(joiner.flush()) == [Output(time=TIME, stream="stdout", content=b"prompt> ")]
    assert list(joiner.flush()) == []


def test_what_follows_a_flushed_piece_goes_on_with_it() -> None:
    joiner = Joiner()
    list(joiner.feed(line("P", b"prompt> ")))
    list(joiner.flush())
    assert list(joiner.feed(line("F", b"answer"))) == [Output(time=b"", stream="stdout", content=b"answer\n")]
    assert list(joiner.feed(line("F", b"next"))) == [Output(time=TIME, stream="stdout", content=b"next\n")]


def test_an_endless_line_is_given_out_in_pieces() -> None:
    joiner = Joiner()
    piece = b"x" * (PIECE_LIMIT // 2)
    fed = [output for _ in range(3) for output in joiner.feed(line("P", piece))]
    assert fed == [Output(time=TIME, stream="stdout", content=piece * 2)]
    assert list(joiner.feed(line("F", b"end"))) == [
        Output(time=b"", stream="stdout", content=piece + b"end\n")
    ]
