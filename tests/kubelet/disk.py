"""A file system of the tests' own for a daemon's state, so that nothing else on the machine fills it."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def mounted(directory: Path, size: int) -> Iterator[Path]:
    """ext4 of `size` bytes in a file that grows, mounted below the directory within the block."""
    image, point = directory / "disk.img", directory / "disk"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)
        image.unlink()


def fill(path: Path) -> None:
    """Write a file until there is no room for another byte."""
    chunk = bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        while chunk:
            try:
                file.write(chunk)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                chunk = chunk[: len(chunk) // 2]


def free(point: Path) -> int:
    """Bytes that are free there."""
    found = os.statvfs(point)
    return found.f_bavail * found.f_frsize


def read_only(point: Path) -> None:
    """Let nobody write there; refused while a file is open for writing, as crispd's are."""
    subprocess.run(["mount", "-o", "remount,ro", point], check=True)


def writable(point: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", point], check=True)
