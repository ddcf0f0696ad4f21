"""Files of an image archive by their names in it: a directory, or a tar whose members are read in place.

Nothing is ever unpacked, and no name leads out of the archive. Blocking, for threads.
"""

from __future__ import annotations

import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from oci.errors import BadInput
from shim.images.cancellation import Cancellation
from shim.images.inflate import inflate
from shim.images.layout import Layout
from shim.images.receive import disk_failure, write_all
from shim.kernel.openat2 import Resolve, openat2

BLOCK = 1 << 20
_MEMBERS = 100_000
_LINKS = 8


class Content:
    """A run of bytes of an opened file, to be read once from its start. Owns the file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file = file
        self._left = size
        self.size = size
        file.seek(start)

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a content lies, for another process of the machine, as long as the source is open."""

    path: Path  # the file, or the directory that `name` is below
    name: str = ""
    start: int = 0
    size: int = 0

    def open(self) -> Content | None:
        """The content, None if there is no such regular file any more."""
        if not self.name:
            return Content(self.path.open("rb", buffering=0), self.start, self.size)
        directory = DirectorySource(self.path)
        try:
            return directory.open(self.name)
        finally:
            directory.close()


class Source(Protocol):
    """An opened archive; its contents can be read by several threads at once."""

    def place(self, name: str) -> Place | None:
        """Where the regular file of that name lies, None if it is known that there is none."""
        ...

    def open(self, name: str) -> Content | None:
        """The regular file of that name, None if there is none."""
        ...

    def close(self) -> None: ...


class DirectorySource:
    """A directory; links in it may lead to other places of it (docker-archives have such), not out of it."""

    def __init__(self, path: Path) -> None:
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def place(self, name: str) -> Place | None:
        return Place(path=Path(f"/proc/{os.getpid()}/fd/{self._directory}"), name=name)

    def open(self, name: str) -> Content | None:
        try:
            # non-blocking: a fifo must not hold us
            descriptor = openat2(self._directory, name, os.O_RDONLY | os.O_NONBLOCK, Resolve.BENEATH)
        except OSError:
            return None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return None
        return Content(os.fdopen(descriptor, "rb", buffering=0), 0, status.st_size)

    def close(self) -> None:
        os.close(self._directory)


class TarSource:
    """A plain tar."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            with tarfile.open(path, mode="r:") as tar:
                for member in tar:
                    self._members[_clean(member.name)] = member
                    if len(self._members) > _MEMBERS:
                        raise BadInput(f"{what}: more than {_MEMBERS} members, this is no image archive")
        except (tarfile.TarError, ValueError, OverflowError) as failure:
            raise BadInput(f"{what}: not a tar archive: {failure}") from failure

    def open(self, name: str) -> Content | None:
        place = self.place(name)
        return None if place is None else place.open()

    def place(self, name: str) -> Place | None:
        member = self._members.get(_clean(name))
        for _ in range(_LINKS):
            if member is None or not (member.issym() or member.islnk()):
                break
            base = PurePosixPath(member.name).parent if member.issym() else PurePosixPath()
            member = self._members.get(_clean(str(base / member.linkname)))
        if member is None or not member.isreg() or member.issparse():
            return None
        return Place(path=self._path, start=member.offset_data, size=member.size)

    def close(self) -> None:
        self._members.clear()


def _clean(name: str) -> str:
    """A member's name without `.`, `..` and leading slashes: only ever compared with other such names."""
    return os.path.normpath(f"/{name}").lstrip("/")


class _Temporary(TarSource):
    """A tar that was inflated for the purpose and goes with the source."""

    def close(self) -> None:
        super().close()
        self._path.unlink(missing_ok=True)


def open_source(path: Path, layout: Layout, *, limit: int, cancellation: Cancellation, what: str) -> Source:
    """The archive at `path`. A compressed tar is inflated into the store's temporary files first.

    Raises BadInput (missing, no archive, over `limit` bytes), Full, Internal, Cancelled.
    """
    try:
        if path.is_dir():
            return DirectorySource(path)
        if not path.is_file():
            raise BadInput(f"{what}: {path} is neither a file nor a directory")
        with path.open("rb", buffering=0) as file:
            head = file.read(264)
    except OSError as failure:
        raise BadInput(f"{what}: {path}: {(failure.strerror or '').lower()}") from failure
    if head[257:262] == b"ustar":
        return TarSource(path, what)
    plain = layout.fresh(".archive")
    try:
        _inflate(path, plain, limit=limit, cancellation=cancellation, what=what)
        return _Temporary(plain, what)
    except BaseException:
        plain.unlink(missing_ok=True)
        raise


def _inflate(path: Path, plain: Path, *, limit: int, cancellation: Cancellation, what: str) -> None:
    size = 0
    with path.open("rb", buffering=0) as file:
        descriptor = os.open(plain, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for block in inflate(iter(lambda: file.read(BLOCK), b""), what=what):
                cancellation.check()
                size += len(block)
                if size > limit:
                    raise BadInput(f"{what}: more than {limit} bytes uncompressed")
                write_all(descriptor, block)
        except OSError as failure:
            raise disk_failure(failure, plain, what) from failure
        finally:
            os.close(descriptor)
