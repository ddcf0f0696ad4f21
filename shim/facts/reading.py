"""Reading the kernel's small files: an absent or refused one is None, not an error."""

from __future__ import annotations

import os
from pathlib import Path

_MOST = 1024 * 1024
_SHORT = 2048
"""Bytes. The kernel fills a page before it gives a part of such a file (fs/seq_file.c): less is the end."""


def text(path: str | Path, *, most: int = _MOST) -> str | None:
    """The file's text, at most `most` bytes of it; None if it cannot be read (any OSError). Blocking."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        parts, left = [], most
        while left > 0 and (part := os.read(descriptor, min(left, 1 << 16))):
            parts.append(part)
            left -= len(part)
            if len(part) < _SHORT:
                break
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "surrogateescape")
