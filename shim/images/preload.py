"""Directories whose archives are imported and whose lists are pulled, at the start and whenever they change.

As K3s and RKE2 have them in `agent/images`: `*.tar`, compressed or not, OCI layouts as directories, and
`*.txt` with an image's name on each line; names with a dot in front are still being copied. One that fails is
named in the log and keeps nothing else. What was imported is remembered in a file, so a restart reads no
archive again whose images are still there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oci.errors import BadInput, CrispError, Full
from oci.workload import ImageId
from shim.files import write_atomic
from shim.kernel.inotify import DirectoryWatch
from shim.records import ImageRecord

log = logging.getLogger(__name__)

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")
LISTS = (".txt",)
QUIET = 2.0
"""Seconds that a file must not have changed before it is read: it may still be being copied."""
_MOST_LIST = 1 << 20
_Identity = tuple[int, ...]


class Images(Protocol):
    """What is needed of the image store."""

    def find(self, name: str) -> ImageRecord | None: ...
    async def pull(self, reference: str) -> ImageRecord: ...
    async def import_archive(self, path: Path) -> Sequence[ImageRecord]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """How a file was when it was read, and what came of it: ids, or None when it failed."""

    identity: _Identity
    images: tuple[ImageId, ...] | None


class Preload:
    """Watches `directories` from `start` to `close`. `memory` is the file that remembers imports.

    Belongs to the event loop.
    """

    def __init__(
        self,
        images: Images,
        directories: Sequence[Path],
        *,
        memory: Path,
        now: Callable[[], float] = time.time,
        quiet: float = QUIET,
    ) -> None:
        self._images = images
        self._directories = tuple(directories)
        self._memory = memory
        self._now = now
        self._quiet = quiet
        self._seen: dict[Path, _Seen] = {}
        self._wanted = asyncio.Event()
        self._watches: list[DirectoryWatch] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Import what is there, in the background, and watch for more. Nothing without directories."""
        if not self._directories:
            return
        for directory in self._directories:
            try:
                self._watches.append(DirectoryWatch(directory, self._wanted.set))
            except Full as error:
                log.warning("images to preload are looked for at starts only", extra={"error": error.message})
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="preload")

    async def close(self) -> None:
        """Stop; an import under way is ended and leaves nothing."""
        for watch in self._watches:
            watch.close()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _serve(self) -> None:
        self._seen = await asyncio.to_thread(self._recall)
        while True:
            self._wanted.clear()
            try:
                again = await self.look()
            except Exception:
                log.exception("looking for images to preload failed")
                again = False
            with suppress(TimeoutError):
                async with asyncio.timeout(self._quiet if again else None):
                    await self._wanted.wait()

    async def look(self) -> bool:
        """Import and pull what is new or changed; True when a file was too young to be read."""
        there = await asyncio.to_thread(self._files)
        young = False
        todo = []
        for path, identity, changed_at in there:
            known = self._seen.get(path)
            if known is not None and known.identity == identity and self._still_there(known):
                continue
            if 0 <= self._now() - changed_at < self._quiet:
                young = True
            else:
                todo.append((path, identity))
        for number, (path, identity) in enumerate(todo, 1):
            found = await self._take(path, f"{number} of {len(todo)}")
            self._seen[path] = _Seen(identity=identity, images=found)
            await asyncio.to_thread(self._remember)
        for gone in self._seen.keys() - {path for path, _, _ in there}:
            del self._seen[gone]
        return young

    def _still_there(self, known: _Seen) -> bool:
        """A file that failed is read again when it has changed, or at the next start."""
        return known.images is None or all(self._images.find(image) is not None for image in known.images)

    async def _take(self, path: Path, number: str) -> tuple[ImageId, ...] | None:
        begin = time.monotonic()
        log.info("preloading images", extra={"path": str(path), "file": number})
        try:
            if path.name.endswith(LISTS):
                found = await self._pull_all(path)
            else:
                found = tuple(record.id for record in await self._images.import_archive(path))
        except CrispError as error:
            log.warning("images are not preloaded", extra={"path": str(path), "reason": str(error)})
            return None
        seconds = round(time.monotonic() - begin, 1)
        log.info("images are preloaded", extra={"path": str(path), "images": len(found), "seconds": seconds})
        return found

    async def _pull_all(self, path: Path) -> tuple[ImageId, ...]:
        """Pull each name of a list that is not there; one that fails is named and keeps no other."""
        found = []
        failed = []
        for number, name in enumerate(await asyncio.to_thread(_lines, path), 1):
            if not name or name.startswith("#"):
                continue
            try:
                record = self._images.find(name) or await self._images.pull(name)
            except CrispError as error:
                failed.append(f"{path}:{number}: {error}")
            else:
                found.append(record.id)
        if failed:
            raise BadInput("; ".join(failed))
        return tuple(found)

    def _files(self) -> list[tuple[Path, _Identity, float]]:
        """Every archive, layout and list, in name order, with its identity and the time of its change."""
        found: list[tuple[Path, _Identity, float]] = []
        for directory in self._directories:
            try:
                paths = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                log.warning(
                    "images to preload cannot be looked for",
                    extra={"path": str(directory), "reason": error.strerror},
                )
                continue
            for path in paths:
                looked_at = path / "index.json" if path.is_dir() else path
                if not path.is_dir() and not path.name.endswith((*ARCHIVES, *LISTS)):
                    continue
                with suppress(OSError):  # a directory of another kind, or it has just gone
                    seen = looked_at.stat()
                    identity = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
                    found.append((path, identity, seen.st_mtime))
        return found

    def _remember(self) -> None:
        kept = {
            os.fspath(path): {"identity": seen.identity, "images": seen.images}
            for path, seen in self._seen.items()
            if seen.images is not None
        }
        try:
            write_atomic(self._memory, json.dumps(kept).encode())
        except (OSError, CrispError) as error:
            log.warning("preloaded images are not remembered", extra={"reason": str(error)})

    def _recall(self) -> dict[Path, _Seen]:
        """What the file says; one that cannot be read only costs reading the archives again."""
        try:
            kept = json.loads(self._memory.read_bytes())
            return {
                Path(path): _Seen(
                    identity=tuple(int(part) for part in seen["identity"]),
                    images=tuple(ImageId(str(image)) for image in seen["images"]),
                )
                for path, seen in kept.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("what was preloaded is not known any more", extra={"reason": str(error)})
            return {}


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            body = file.read(_MOST_LIST)
        return [line.strip() for line in body.decode().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error
