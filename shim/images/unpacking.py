"""The daemon's end of the process that unpacks a layer: starts it, waits, and says in words how it failed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oci.errors import BadInput, CrispError, Full, Internal
from shim import process
from shim.images.confinement import Bounds
from shim.images.unpack import BAD_LAYER, NO_SPACE, OPEN
from shim.images.usage import Use

_PATIENCE: Final = 1800.0
"""Seconds for a whole layer: a slow disk counts, which a bound of processor time does not."""

_CODE: Final = Path(__file__).resolve().parents[2]
_WORDS: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    seal: str
    use: Use  # of the directory, itself included


async def unpack(
    tar: Path, directory: Path, what: str, *, isolate: bool = True, bounds: Bounds | None = None
) -> Unpacked:
    """Unpack a verified tar into an empty directory, which is the caller's to remove if this fails.

    Raises BadInput (the layer is at fault, too much memory or time among that), Full, Deadline, Internal.
    """
    held = bounds or Bounds()
    with contextlib.ExitStack() as stack:
        source = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, source)
        target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, target)
        words = [str(number) for number in (source, target, held.memory, held.seconds)]
        words += [] if isolate else [OPEN]
        try:
            done = await process.run(
                [sys.executable, "-P", "-s", "-m", "shim.images.unpack", *words],
                env={"PYTHONPATH": str(_CODE), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"},
                timeout=_PATIENCE,
                pass_fds=(source, target),
                output_limit=_WORDS,
            )
        except process.CommandFailed as failure:
            raise _explain(failure, f"{what}: unpacking into {directory.parent}", held) from failure
    inodes, size, seal = done.stdout.decode("ascii").split()
    return Unpacked(seal=seal, use=Use(bytes=int(size), inodes=int(inodes)))


def _explain(failure: process.CommandFailed, stage: str, bounds: Bounds) -> CrispError:
    words = failure.stderr.decode("utf-8", "replace").strip()[:1000]
    if failure.returncode == BAD_LAYER:
        return BadInput(f"{stage}: {words}")
    if failure.returncode == NO_SPACE:
        return Full(f"{stage}: {words}")
    if failure.returncode == -signal.SIGXCPU:
        return BadInput(f"{stage}: the layer takes more than {bounds.seconds} s of processor time")
    if failure.returncode == -signal.SIGSYS:
        return Internal(
            f"{stage}: its process was killed for a system call that unpacking does not need (SIGSYS); "
            "if the kernel's log shows a harmless one, images.isolate_unpack = false lets it be made"
        )
    return Internal(f"{stage}: {words or failure}")
