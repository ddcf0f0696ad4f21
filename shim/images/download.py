"""One blob as a stream of blocks, whatever happens on the way: cuts, stalls, endpoints that fail.

Resumes at the byte where a connection broke. What comes is not trusted here; who reads the blocks checks
the digest. Blocking, for threads.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPException

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse, HTTPResponse

from oci.errors import Absent, BadInput, CrispError, Internal
from oci.manifest import Descriptor
from oci.registry_transfer import shown_url, wait_before
from shim.images.cancellation import Cancellation
from shim.images.connections import Unreachable
from shim.images.progress import LayerMeter
from shim.images.session import Corrupt, Session
from shim.images.settings import Transfer

BLOCK = 256 << 10
_READ = 128 << 10
_PROGRESS = 1 << 20
"""Bytes after which a connection counts as having worked, so that the tries begin anew."""


def blocks(
    sessions: Sequence[Session],
    blob: Descriptor,
    *,
    offset: int = 0,
    transfer: Transfer,
    cancellation: Cancellation,
    meter: LayerMeter,
    what: str,
) -> Iterator[bytes]:
    """The blob's bytes from `offset` to its end, in blocks of about `BLOCK`, from the first session that

    delivers. `meter.received` is how many bytes of the blob are there, `offset` included.

    Raises Unreachable, Absent, BadInput (refused), Corrupt (longer than promised), Cancelled.
    """
    attempt = 0
    failures: list[CrispError] = []
    queue = list(sessions)
    while queue:
        session = queue[0]
        begun = offset
        try:
            for block in _once(session, blob, offset, transfer, cancellation, what):
                offset += len(block)
                meter.received = offset
                yield block
            return
        except (Absent, BadInput, Internal) as failure:
            failures.append(failure)
            queue.pop(0)
            attempt = 0
        except Unreachable as failure:
            attempt = 0 if offset - begun >= _PROGRESS else attempt + 1
            pause = wait_before(
                max(attempt - 1, 0),
                asked=None,
                retries=transfer.retries,
                backoff=transfer.backoff,
                longest=transfer.longest_wait,
                jitter=random.random(),  # noqa: S311 - spreads retries, hides nothing
            )
            if not failure.again or attempt > transfer.retries or pause is None:
                failures.append(failure)
                queue.pop(0)
                attempt = 0
            else:
                cancellation.wait(pause)
    raise failures[-1] if failures else Internal(f"{what}: no endpoint holds blobs")


def _once(
    session: Session,
    blob: Descriptor,
    offset: int,
    transfer: Transfer,
    cancellation: Cancellation,
    what: str,
) -> Iterator[bytes]:
    """Blocks over one connection, from `offset` to the end of the blob."""
    response, skip, url = session.open_blob(blob.digest, offset, what=what)
    left = blob.size - offset
    gathered: list[bytes] = []
    size = 0
    window_start, window_bytes = time.monotonic(), 0
    finished = False
    try:
        while left or skip:
            piece = _read(response, session, url)
            if not piece:
                raise Unreachable(
                    f"{what}: {shown_url(url)}: the connection ended {left} bytes before the end of the blob",
                    again=True,
                )
            now = time.monotonic()
            window_bytes += len(piece)
            if now - window_start >= transfer.stall_timeout:
                if window_bytes < transfer.minimum_rate * (now - window_start):
                    raise Unreachable(
                        f"{what}: {shown_url(url)}: {window_bytes} bytes in {now - window_start:.0f} s, "
                        f"less than {transfer.minimum_rate} a second",
                        again=True,
                    )
                window_start, window_bytes = now, 0
            if skip:
                dropped = min(skip, len(piece))
                skip -= dropped
                piece = piece[dropped:]
            if len(piece) > left:
                raise Corrupt(f"{what}: {shown_url(url)} sent more than the {blob.size} bytes of the blob")
            left -= len(piece)
            gathered.append(piece)
            size += len(piece)
            if size >= BLOCK:
                yield b"".join(gathered)
                gathered, size = [], 0
            cancellation.check()
        if _read(response, session, url):
            raise Corrupt(f"{what}: {shown_url(url)} sent more than the {blob.size} bytes of the blob")
        response.release_conn()
        finished = True
    except Unreachable:
        if size:  # what came before the cut is kept: the next connection goes on after it
            yield b"".join(gathered)
        raise
    finally:
        if not finished:
            response.close()
    if size:
        yield b"".join(gathered)


def _read(response: BaseHTTPResponse, session: Session, url: str) -> bytes:
    try:
        if isinstance(response, HTTPResponse):
            return response.read1(_READ, decode_content=False)
        return response.read(_READ, decode_content=False)
    except (HTTPError, HTTPException, OSError, ValueError) as failure:
        found = session.failure(failure, url)
        raise Unreachable(str(found), again=True) from failure
