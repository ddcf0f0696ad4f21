"""A layer's stream made a verified tar with its EROFS index: hashes, inflating and writing side by side.

Three threads: one reads (network or file) and hashes what is compressed, one inflates, the calling one hashes
the tar, has it indexed and writes it. What is returned is verified but temporary: `layers.py` keeps it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from oci.errors import BadInput, CrispError, Full, Internal
from oci.layers.erofs import IndexBuilder
from shim.images.cancellation import Cancellation
from shim.images.channel import Stage
from shim.images.inflate import inflate
from shim.images.layout import Layout
from shim.images.parents import encode_implied
from shim.images.seal import seal_of_index
from shim.images.session import Corrupt
from shim.images.settings import Limits

_DEPTH = 2
_FREE_RATIO = 64 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a layer must be. `digest` "" and `size` -1 where nothing is known of the compressed stream."""

    diff_id: str
    digest: str = ""
    size: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A verified layer in temporary files."""

    tar: Path
    index: Path
    inodes: int
    implied: tuple[bytes, ...]  # directories that the layer does not describe
    blob: Path | None = None  # the compressed stream as it came, where that is kept
    seal: str = ""  # of the index

    def discard(self) -> None:
        self.tar.unlink(missing_ok=True)
        self.index.unlink(missing_ok=True)
        if self.blob is not None:
            self.blob.unlink(missing_ok=True)


def receive(
    blocks: Iterable[bytes],
    expected: Expected,
    layout: Layout,
    *,
    limits: Limits,
    cancellation: Cancellation,
    what: str,
    durable: bool,
) -> Received:
    """Write the layer that `blocks` (compressed or not) hold, with its index, both durable if asked.

    Blocking. On any failure nothing is left. Raises Corrupt (digest, size), BadInput (bad tar, limits), Full
    (path), Internal (failing disk), Cancelled, and whatever `blocks` raises.
    """
    tar = layout.fresh(".tar")
    index = layout.fresh(".erofs")
    done = False
    try:
        with (
            Stage(lambda: _checked(blocks, expected, what), depth=_DEPTH, name="crisp-fetch") as compressed,
            Stage(
                lambda: _bounded(compressed, expected, limits, what), depth=_DEPTH, name="crisp-inflate"
            ) as content,
        ):
            try:
                builder = _write(content, tar, expected, cancellation, what, durable=durable)
            except BaseException:
                cancellation.cancel()  # a reader that waits for the network must not be waited for
                raise
        made = _finished(builder, what)
        write_file(index, made, durable=durable)
        done = True
        return Received(
            tar=tar,
            index=index,
            inodes=builder.inodes,
            implied=builder.implied,
            seal=seal_of_index(made, encode_implied(builder.implied)),
        )
    except OSError as failure:
        raise disk_failure(failure, layout.temporary, what) from failure
    finally:
        if not done:
            for left in (tar, index):
                with contextlib.suppress(OSError):  # a disk that became read-only: the first error is told
                    left.unlink(missing_ok=True)


def _finished(builder: IndexBuilder, what: str) -> bytes:
    try:
        return builder.finish()
    except BadInput as failure:
        raise BadInput(f"{what}: {failure.message}") from failure


def disk_failure(failure: OSError, path: Path, what: str) -> CrispError:
    """What a failed write is called: Full, or Internal for a disk that fails."""
    name = errno.errorcode.get(failure.errno or 0, "no errno")
    place = failure.filename or path
    words = f"{what}: writing {place}: {os.strerror(failure.errno or 0).lower()} ({name})"
    if failure.errno in _FULL:
        return Full(f"{words}: free space there, or remove images")
    return Internal(words)


def _checked(blocks: Iterable[bytes], expected: Expected, what: str) -> Iterator[bytes]:
    """The blocks as they come; at their end the digest and the size must be right."""
    digest = hashlib.sha256()
    size = 0
    for block in blocks:
        digest.update(block)
        size += len(block)
        yield block
    if expected.size >= 0 and size != expected.size:
        raise Corrupt(f"{what}: {size} bytes came, the manifest says {expected.size}")
    found = f"sha256:{digest.hexdigest()}"
    if expected.digest and found != expected.digest:
        raise Corrupt(f"{what}: what came has digest {found}, not {expected.digest}")


def _bounded(blocks: Iterator[bytes], expected: Expected, limits: Limits, what: str) -> Iterator[bytes]:
    """The tar. A damaged stream is read to its end first: a wrong digest is the better explanation."""
    limit = limits.image
    if expected.size >= 0:
        limit = min(limit, max(_FREE_RATIO, expected.size * limits.ratio))
    size = 0
    try:
        for block in inflate(blocks, what=what):
            size += len(block)
            if size > limit:
                raise BadInput(
                    f"{what}: more than {limit} uncompressed bytes, the limit for {expected.size} compressed"
                )
            yield block
    except BadInput:
        drain(blocks)
        raise


def drain(blocks: Iterator[bytes]) -> None:
    """Read on to the end, for the error that may stand there."""
    for _ in blocks:
        pass


def _write(
    content: Iterator[bytes],
    tar: Path,
    expected: Expected,
    cancellation: Cancellation,
    what: str,
    *,
    durable: bool,
) -> IndexBuilder:
    builder = IndexBuilder()
    digest = hashlib.sha256()
    descriptor = os.open(tar, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        for block in content:
            cancellation.check()
            digest.update(block)
            try:
                builder.receive(block)
            except BadInput as failure:
                drain(content)
                raise BadInput(f"{what}: {failure.message}") from failure
            write_all(descriptor, block)
        found = f"sha256:{digest.hexdigest()}"
        if found != expected.diff_id:
            raise Corrupt(
                f"{what}: its tar has digest {found}, the image configuration says {expected.diff_id}"
            )
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    return builder


def write_all(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def write_file(path: Path, content: bytes, *, durable: bool) -> None:
    """A new file with `content`. Raises OSError; the caller removes what is left."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        write_all(descriptor, content)
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
