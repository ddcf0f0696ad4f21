from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.units import Bytes, Seconds, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5), ("2s", 2.0), ("2m", 120.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("1d", 86400.0),
        ("0s", 0.0), ("1m30s250ms", 90.25),
    ],
)  # fmt: skip
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    value = parse_duration(text)
    assert (type(value), value) == (Seconds, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", "5", "5 s", "s", "-5s", "5sec", "5M", "5S", "1e3s", "5s ", "1s1s", "30s1m", "5,5s", "٣s",
        "inf", "nan", "5s3", "1234567890123456789s",
    ],
)  # fmt: skip
def test_a_duration_written_otherwise_is_refused_with_the_units_that_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"write a number with a unit \(ms, s, m, h, d\), such as '30s'"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0), ("512B", 512), ("1KB", 1000), ("1KiB", 1024), ("64MiB", 67108864), ("1.5GB", 1500000000),
        ("1 GiB", 2**30), ("2tib", 2**41), ("0.1B", 0), ("9007199254740993B", 9007199254740993),
    ],
)  # fmt: skip
def test_a_size_is_a_number_with_a_unit(text: str, size: int) -> None:
    value = parse_size(text)
    assert (type(value), value) == (Bytes, size)


@pytest.mark.parametrize(
    "text", ["", "64", "64M", "64Mi", "MiB", "-1B", "1e3B", "1  MiB", "1MiB1KiB", "1PiB"]
)
def test_a_size_written_otherwise_is_refused_with_the_units_that_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"write a number with a unit \(B, KB, .* TiB \(powers of 1024\)\)"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_duration_is_written_as_it_is_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.0005)


@given(st.integers(min_value=0, max_value=10**18 - 1))
def test_a_size_is_written_as_it_is_read(size: int) -> None:
    assert parse_size(format_size(size)) == size
