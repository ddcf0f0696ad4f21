"""A file system of the tests' own for a daemon's state, so that nothing else on the machine fills it."""

from __future__ import annotations

import contextlib
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


def free(point: Path) -> int:
    """Bytes that are free there."""
    found = os.statvfs(point)
    return found.f_bavail * found.f_frsize
