"""A layer's compressed stream to its tar, in bounded steps: gzip (isal), zstd, or none, told by the content.

In process, so that no decompressor found on a PATH is ever run; a bomb costs one block of memory at a time.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import cast

import zstandard
from isal import igzip_lib

from oci.errors import BadInput

BLOCK = 256 << 10
_Damaged = cast(type[Exception], igzip_lib.error)
_PIECE = 32 << 10
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip"}
_WINDOW = 128 << 20  # RFC 8878 recommends decoders to support 8 MiB; --long=27 makes 128 MiB


def inflate(blocks: Iterable[bytes], *, what: str) -> Iterator[bytes]:
    """The uncompressed blocks, at most `BLOCK` bytes each. Raises BadInput beginning with `what`."""
    stream = iter(blocks)
    head = b""
    for block in stream:
        head += block
        if len(head) >= 8:
            break
    chained = _chain(head, stream)
    if head.startswith(_GZIP):
        yield from _gunzip(chained, what)
    elif head.startswith((_ZSTD, *_ZSTD_SKIPPABLE)):
        yield from _unzstd(chained, what)
    else:
        for magic, name in _OTHERS.items():
            if head.startswith(magic):
                raise BadInput(f"{what}: compressed with {name}, which image layers may not be")
        yield from chained


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _gunzip(blocks: Iterator[bytes], what: str) -> Iterator[bytes]:
    """RFC 1952: members follow one another; zeros after the last are padding."""
    decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    fresh, first = True, True
    try:
        for block in blocks:
            # The decoder copies what lies behind a member's end, so a megabyte of tiny members would be
            # copied over and over: small pieces once there is a second member.
            step = len(block) if first else _PIECE
            for start in range(0, len(block), step):
                data = block[start : start + step]
                while data or not (decoder.needs_input or decoder.eof):
                    if decoder.eof:
                        decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
                        fresh, first = True, False
                    if fresh and not data[0]:
                        data = data.lstrip(b"\0")
                        continue
                    fresh = False
                    out = decoder.decompress(data, BLOCK)
                    data = decoder.unused_data if decoder.eof else b""
                    if out:
                        yield out
    except _Damaged as failure:
        raise BadInput(f"{what}: damaged gzip stream: {failure}") from failure
    if not fresh and not decoder.eof:
        raise BadInput(f"{what}: the gzip stream is truncated")


class _Source(io.BytesIO):
    """An iterator of blocks as a file for zstandard's reader."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        super().__init__()
        self._blocks = blocks
        self._rest = memoryview(b"")

    def read(self, size: int | None = -1, /) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        if size is not None and 0 <= size < len(self._rest):
            piece, self._rest = self._rest[:size], self._rest[size:]
            return bytes(piece)
        piece, self._rest = self._rest, memoryview(b"")
        return bytes(piece)


def _unzstd(blocks: Iterator[bytes], what: str) -> Iterator[bytes]:
    """RFC 8878: frames follow one another, skippable ones (zstd:chunked's table) among them.

    A stream that ends inside a frame is not noticed here: the diff id and the tar's framing tell.
    """
    decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    try:
        with decoder.stream_reader(_Source(blocks), read_size=BLOCK, read_across_frames=True) as reader:
            while block := reader.read(BLOCK):
                yield block
    except zstandard.ZstdError as failure:
        raise BadInput(f"{what}: damaged zstd stream: {failure}") from failure
