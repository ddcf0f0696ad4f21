"""Directories of small documents that others put on the node: read as they are at each look.

A file is parsed again when it is another one than before, by its inode, size and times; so a change counts at
once and needs no watch. Blocking; callers use a thread. Knows no format.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from oci.errors import BadInput

T = TypeVar("T")

log = logging.getLogger(__name__)

_MOST_BYTES = 8 << 20  # of one file


@dataclass(frozen=True, slots=True)
class _Read(Generic[T]):
    """A file as it was read: what it is, or why it is passed over."""

    identity: tuple[int, ...]
    document: T | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[T]):
    """`documents` by directory, in the order given, and file name; `problems` say what was passed over."""

    documents: tuple[tuple[Path, tuple[tuple[str, T], ...]], ...]
    problems: tuple[str, ...]


class Documents(Generic[T]):
    """The files of `directories` whose names end in one of `endings`.

    `parse` takes a file's content and path and raises BadInput; `what` begins the problems' words.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        *,
        endings: Sequence[str],
        parse: Callable[[bytes, str], T],
        what: str,
    ) -> None:
        self.directories = tuple(directories)
        self._endings = tuple(endings)
        self._parse = parse
        self._what = what
        self._read: dict[Path, _Read[T]] = {}

    def look(self) -> Found[T]:
        """Everything there is now; what cannot be read is passed over. Blocking. Never raises."""
        problems: list[str] = []
        found: list[tuple[Path, tuple[tuple[str, T], ...]]] = []
        known: dict[Path, _Read[T]] = {}
        for directory in self.directories:
            here: list[tuple[str, T]] = []
            for path in self._files(directory, problems):
                read = self._take(path, self._read.get(path))
                if read is None:
                    continue
                known[path] = read
                if read.document is not None:
                    here.append((path.name, read.document))
                else:
                    problems.append(read.problem)
            found.append((directory, tuple(here)))
        self._read = known
        return Found(documents=tuple(found), problems=tuple(problems))

    def _files(self, directory: Path, problems: list[str]) -> list[Path]:
        try:
            return sorted(path for path in directory.iterdir() if path.suffix in self._endings)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            problems.append(f"{self._what} {directory}: {error.strerror}")
            return []

    def _take(self, path: Path, before: _Read[T] | None) -> _Read[T] | None:
        """None for what is no file, or went meanwhile."""
        identity: tuple[int, ...] = ()
        try:
            with path.open("rb") as file:
                seen = os.fstat(file.fileno())
                identity = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
                if before is not None and before.identity == identity:
                    return before
                data = file.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise BadInput(f"{self._what} {path}: over {_MOST_BYTES} bytes")
            return _Read(identity, self._parse(data, os.fspath(path)))
        except (FileNotFoundError, IsADirectoryError):
            return None
        except OSError as error:
            return _Read((), None, f"{self._what} {path}: {error.strerror}")
        except BadInput as error:
            log.warning("a file is passed over", extra={"path": str(path), "reason": error.message})
            return _Read(identity, None, error.message)
