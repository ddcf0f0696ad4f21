"""Compressed streams in any pieces, damaged ones, and bombs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import tracemalloc

import pytest
import zstandard

from oci.errors import BadInput
from shim.images.inflate import BLOCK, inflate

RAW = random.Random(7).randbytes(300_000) + bytes(2_000_000)
GZIP = gzip.compress(RAW, 1)
ZSTD = zstandard.compress(RAW, 1)
SKIPPABLE = b"\x50\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"seven.."


def run(data: bytes, step: int) -> bytes:
    blocks = list(inflate((data[at : at + step] for at in range(0, len(data), step)), what="layer x"))
    assert all(0 < len(block) <= max(BLOCK, step) for block in blocks)
    return b"".join(blocks)


@pytest.mark.parametrize("step", [1009, 1 << 16, 1 << 30])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (RAW, RAW),
        (b"", b""),
        (b"abc", b"abc"),
        (GZIP, RAW),
        (GZIP + GZIP, RAW + RAW),
        (GZIP + bytes(1500), RAW),
        (b"".join(gzip.compress(bytes([n])) for n in range(200)), bytes(range(200))),
        (ZSTD, RAW),
        (ZSTD + ZSTD, RAW + RAW),
        (SKIPPABLE + ZSTD + SKIPPABLE, RAW),
    ],
    ids=[
        "plain",
        "empty",
        "short",
        "gzip",
        "two members",
        "padding",
        "many members",
        "zstd",
        "two frames",
        "skippable",
    ],
)
def test_every_compression_is_told_by_its_content(data: bytes, expected: bytes, step: int) -> None:
    assert run(data, step) == expected


def test_one_byte_at_a_time_gives_the_same() -> None:
    small = gzip.compress(b"x" * 5000) + gzip.compress(b"y")
    assert run(small, 1) == b"x" * 5000 + b"y"
    assert run(zstandard.compress(b"x" * 5000), 1) == b"x" * 5000


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GZIP[:-1], "the gzip stream is truncated"),
        (GZIP[: len(GZIP) // 2], "the gzip stream is truncated"),
        (GZIP + b"junk that is no gzip member at all", "damaged gzip stream"),
        (GZIP[:1000] + b"\xff" * 1000 + GZIP[2000:], "gzip stream"),
        (bz2.compress(RAW), "compressed with bzip2, which image layers may not be"),
        (lzma.compress(RAW), "compressed with xz"),
    ],
)
def test_damage_is_told(data: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=rf"^layer x: .*(?:{why})"):
        assert run(data, 4096) == RAW, "came through damaged"


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_bomb_costs_a_block_of_memory_at_a_time(compress: object) -> None:
    assert callable(compress)
    bomb = compress(bytes(200 << 20))
    tracemalloc.start()
    try:
        assert sum(len(block) for block in inflate([bomb], what="x")) == 200 << 20
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
