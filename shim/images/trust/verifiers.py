"""containerd's image verifier plugins: every program of a directory is asked about each image that is pulled.

The protocol is containerd's (docs/image-verification.md there): `-name NAME -digest DIGEST -stdin-media-type
TYPE`, the descriptor as JSON on standard input, status 0 accepts, standard output says why.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from oci.errors import CrispError, Untrusted
from shim import process
from shim.images.settings import TrustSettings

log = logging.getLogger(__name__)

_DESCRIPTOR = "application/vnd.oci.descriptor.v1+json"
_REASON = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be judged: the name that is pulled and what it leads to."""

    name: str
    digest: str
    media_type: str
    size: int


async def verify(settings: TrustSettings, asked: Asked) -> None:
    """Ask the programs in name order, one after the other. Raises Untrusted with the words of the first

    that refuses, fails, or does not answer in its time.
    """
    directory = settings.verifier_dir
    if directory is None or settings.max_verifiers == 0:
        return
    what = f"image {asked.name}"
    try:
        names = await asyncio.to_thread(lambda: sorted(path.name for path in directory.iterdir()))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as failure:
        raise Untrusted(f"{what}: image verifiers of {directory}: {failure.strerror}") from failure
    chosen = names if settings.max_verifiers < 0 else names[: settings.max_verifiers]
    if len(chosen) < len(names):
        log.warning(
            "more image verifiers than are asked",
            extra={"directory": str(directory), "left_out": ", ".join(names[len(chosen) :])},
        )
    for name in chosen:
        await _ask(settings, directory / name, asked, what)


async def _ask(settings: TrustSettings, program: Path, asked: Asked, what: str) -> None:
    descriptor = {"mediaType": asked.media_type, "digest": asked.digest, "size": asked.size}
    argv = [str(program), "-name", asked.name, "-digest", asked.digest, "-stdin-media-type", _DESCRIPTOR]
    try:
        result = await process.run(
            argv,
            timeout=settings.verifier_timeout,
            ok=range(-64, 256),
            stdin=json.dumps(descriptor, separators=(",", ":")).encode(),
            output_limit=_REASON,
        )
    except CrispError as failure:
        raise Untrusted(f"{what}: image verifier {failure.message}") from failure
    reason = " ".join(result.stdout.decode("utf-8", "replace").split())[:1000]
    if result.returncode != 0:
        words = reason or "it gave no reason"
        raise Untrusted(f"{what}: image verifier {program} refuses it (status {result.returncode}): {words}")
    log.info(
        "an image verifier accepts", extra={"image": asked.name, "program": str(program), "reason": reason}
    )
