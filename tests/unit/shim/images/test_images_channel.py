"""Blocks between threads: in order, with the error at the end, and nobody left waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from shim.images.channel import Stage


def count(number: int) -> Iterator[bytes]:
    for value in range(number):
        yield bytes([value])


def test_blocks_come_in_order() -> None:
    with Stage(lambda: count(200), depth=3, name="t") as blocks:
        assert b"".join(blocks) == bytes(range(200))


def test_an_error_comes_after_the_blocks_before_it() -> None:
    def work() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"), Stage(work, depth=3, name="t") as blocks:
        seen.extend(blocks)
    assert seen == [b"a"]


def test_a_reader_that_leaves_ends_the_sender() -> None:
    ended = threading.Event()

    def work() -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            ended.set()

    with Stage(work, depth=2, name="t") as blocks:
        assert next(blocks) == b"x"
    assert ended.is_set()
    assert not any(thread.name == "t" for thread in threading.enumerate())
