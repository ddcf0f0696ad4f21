"""How much disk a directory takes. Blocking, for threads."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    bytes: int
    inodes: int


def walk(directory: Path) -> Use:
    """What `du` says of a tree or file: blocks, hard links once, other file systems left out; absent is zero.

    What vanishes meanwhile is not counted.
    """
    try:
        top = os.lstat(directory)
    except FileNotFoundError:
        return Use(bytes=0, inodes=0)
    total, inodes = top.st_blocks * 512, 1
    linked: set[int] = set()
    stack = [os.fspath(directory)] if stat.S_ISDIR(top.st_mode) else []
    while stack:
        try:
            with os.scandir(stack.pop()) as listing:
                for entry in listing:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if status.st_dev != top.st_dev:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    elif status.st_nlink > 1:
                        if status.st_ino in linked:
                            continue
                        linked.add(status.st_ino)
                    total += status.st_blocks * 512
                    inodes += 1
        except FileNotFoundError:
            continue
    return Use(bytes=total, inodes=inodes)
