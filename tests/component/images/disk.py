"""A disk that notes what is written to it, fails where it is told to, and shows what a power cut leaves.

`recorded` notes every change that this process makes below a directory, in order: names, bytes, flushes, and
the commits of the state store. `Cut` is one state in which a power cut may leave that directory: whatever a
flush has covered is there; of the rest any part, in any order, torn or as zeros (POSIX promises no more:
flushing a file does not flush its name, and a rename is whole or not at all).
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shim.images import layers
from shim.images.unpacking import Unpacked
from shim.kernel import libc
from shim.state.database import Database

DATABASE = ("state.db", "state.db-wal")
_HIDDEN = (*DATABASE, "state.db-shm")


@dataclass(frozen=True, slots=True)
class Name:
    """`inode` gets that name in the directory; None takes the name away. `other` loses its own meanwhile."""

    directory: int
    name: str
    inode: int | None
    other: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Data:
    inode: int
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Size:
    inode: int
    size: int


@dataclass(frozen=True, slots=True)
class Flush:
    inode: int | None  # None is the whole file system


@dataclass(frozen=True, slots=True)
class Commit:
    """The database's files as they are after it."""

    files: tuple[bytes, bytes]


Op = Name | Data | Size | Flush | Commit


@dataclass(slots=True)
class Log:
    """What happened. `kinds` says of each inode whether it is a file, a directory or a symlink's target."""

    root: Path
    ops: list[Op] = field(default_factory=list)
    kinds: dict[int, str | bytes] = field(default_factory=lambda: {0: "directory"})
    fail: Callable[[str, str], None] = lambda _what, _path: None
    names: dict[tuple[int, str], int] = field(default_factory=dict)
    opened: dict[int, tuple[int, int]] = field(default_factory=dict)  # descriptor -> inode, position
    lock: threading.RLock = field(default_factory=threading.RLock)

    def inode(self, path: str) -> int | None:
        """The inode of an absolute path below the root, if it is known."""
        found = 0
        for part in self._parts(path):
            if (found_or_none := self.names.get((found, part))) is None:
                return None
            found = found_or_none
        return found

    def _parts(self, path: str) -> list[str]:
        relative = os.path.relpath(path, self.root)
        return [] if relative == "." else relative.split("/")

    def within(self, path: str) -> bool:
        below = path == str(self.root) or path.startswith(f"{self.root}/")
        return below and os.path.basename(path) not in _HIDDEN  # noqa: PTH119 - text

    def make(self, path: str, kind: str | bytes) -> int:
        inode = len(self.kinds)
        self.kinds[inode] = kind
        self.name(path, inode)
        return inode

    def name(self, path: str, inode: int | None, other: tuple[int, str] | None = None) -> None:
        above = self.inode(os.path.dirname(path))  # noqa: PTH120 - text
        assert above is not None, path
        place = (above, os.path.basename(path))  # noqa: PTH119 - text
        if inode is None:
            self.names.pop(place, None)
        else:
            self.names[place] = inode
        if other is not None:
            self.names.pop(other, None)
        self.ops.append(Name(*place, inode, other))


def _path(path: Any, dir_fd: int | None) -> str:
    text = os.fspath(path)
    text = os.fsdecode(text)
    if dir_fd is not None and not text.startswith("/"):
        text = f"{Path(f'/proc/self/fd/{dir_fd}').readlink()}/{text}"
    return os.path.abspath(text)  # noqa: PTH100 - no link is followed


@contextlib.contextmanager
def recorded(root: Path) -> Iterator[Log]:
    """Note what this process does below `root`, an empty directory, until the block ends."""
    log = Log(root)
    doors = _Doors(log)
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in doors.all():
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, replacement)
        yield log


class _Doors:
    """The functions by which the store changes a disk."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._real = {name: getattr(os, name) for name in _FUNCTIONS}

    def all(self) -> list[tuple[Any, str, Any]]:
        doors: list[tuple[Any, str, Any]] = [(os, name, getattr(self, f"_{name}")) for name in _FUNCTIONS]
        call, write, unpack = libc.call, Database.write, layers.unpack
        log = self._log

        def calling(name: str, *arguments: Any, **more: Any) -> int:
            if name != "syncfs":
                return call(name, *arguments, **more)
            with log.lock:
                log.fail("syncfs", "")
                found = call(name, *arguments, **more)
                log.ops.append(Flush(None))
                return found

        def writing(database: Database, *rows: Any) -> None:
            with log.lock:
                try:
                    log.fail("commit", str(database.path))
                except OSError as failure:
                    raise sqlite3.OperationalError("database or disk is full") from failure
                write(database, *rows)
                files = [(log.root / name).read_bytes() for name in DATABASE]
                log.ops.append(Commit((files[0], files[1])))

        async def unpacking(tar: Path, directory: Path, *rest: Any, **more: Any) -> Unpacked:
            log.fail("unpack", str(directory))
            try:
                return await unpack(tar, directory, *rest, **more)
            finally:  # one that was ended has made files too
                with log.lock:
                    self._made(directory)

        return [*doors, (libc, "call", calling), (Database, "write", writing), (layers, "unpack", unpacking)]

    def _made(self, directory: Path) -> None:
        """What another process has made below `directory`."""
        for base, below, names in os.walk(directory):
            for name in [*below, *names]:
                path = Path(base, name)
                mode = path.lstat().st_mode
                if stat.S_ISLNK(mode):
                    self._log.make(str(path), os.fsencode(path.readlink()))
                elif stat.S_ISDIR(mode):
                    self._log.make(str(path), "directory")
                else:
                    inode = self._log.make(str(path), "file")
                    self._log.ops.append(Data(inode, 0, path.read_bytes()))

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        log, text = self._log, _path(path, dir_fd)
        if not log.within(text):
            return self._real["open"](path, flags, mode, dir_fd=dir_fd)
        with log.lock:
            if flags & os.O_CREAT:
                log.fail("open", text)
            descriptor = self._real["open"](path, flags, mode, dir_fd=dir_fd)
            inode = log.inode(text)
            if inode is None:
                inode = log.make(text, "file") if flags & os.O_CREAT else -1
            log.opened[descriptor] = (inode, 0)
            return descriptor

    def _close(self, descriptor: int) -> None:
        with self._log.lock:
            self._log.opened.pop(descriptor, None)
            self._real["close"](descriptor)

    def _write(self, descriptor: int, content: Any) -> int:
        log = self._log
        if descriptor not in log.opened:
            return self._real["write"](descriptor, content)
        with log.lock:
            inode, position = log.opened[descriptor]
            log.fail("write", "")
            count = self._real["write"](descriptor, content)
            log.ops.append(Data(inode, position, bytes(content[:count])))
            log.opened[descriptor] = (inode, position + count)
            return count

    def _pwrite(self, descriptor: int, content: Any, offset: int) -> int:
        log = self._log
        if descriptor not in log.opened:
            return self._real["pwrite"](descriptor, content, offset)
        with log.lock:
            log.fail("write", "")
            count = self._real["pwrite"](descriptor, content, offset)
            log.ops.append(Data(log.opened[descriptor][0], offset, bytes(content[:count])))
            return count

    def _ftruncate(self, descriptor: int, size: int) -> None:
        log = self._log
        with log.lock:
            self._real["ftruncate"](descriptor, size)
            if descriptor in log.opened:
                log.ops.append(Size(log.opened[descriptor][0], size))

    def _fsync(self, descriptor: int) -> None:
        self._flush("fsync", descriptor)

    def _fdatasync(self, descriptor: int) -> None:
        self._flush("fdatasync", descriptor)

    def _flush(self, name: str, descriptor: int) -> None:
        log = self._log
        with log.lock:
            if descriptor in log.opened:
                log.fail(name, "")
            self._real[name](descriptor)
            if descriptor in log.opened:
                log.ops.append(Flush(log.opened[descriptor][0]))

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        log, text = self._log, _path(path, dir_fd)
        with log.lock:
            if log.within(text):
                log.fail("mkdir", text)
            self._real["mkdir"](path, mode, dir_fd=dir_fd)
            if log.within(text):
                log.make(text, "directory")

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._take("unlink", path, dir_fd)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._take("rmdir", path, dir_fd)

    def _take(self, name: str, path: Any, dir_fd: int | None) -> None:
        log, text = self._log, _path(path, dir_fd)
        with log.lock:
            self._real[name](path, dir_fd=dir_fd)
            if log.within(text):
                log.name(text, None)

    def _rename(self, one: Any, other: Any) -> None:
        self._move("rename", one, other)

    def _replace(self, one: Any, other: Any) -> None:
        self._move("replace", one, other)

    def _move(self, name: str, one: Any, other: Any) -> None:
        log, before, after = self._log, _path(one, None), _path(other, None)
        with log.lock:
            if log.within(after):
                log.fail("rename", after)
            self._real[name](one, other)
            if log.within(after):
                inode, above = log.inode(before), log.inode(os.path.dirname(before))  # noqa: PTH120
                assert inode is not None, before
                assert above is not None, before
                log.name(after, inode, (above, os.path.basename(before)))  # noqa: PTH119


_FUNCTIONS = (
    "open", "close", "write", "pwrite", "ftruncate", "fsync", "fdatasync", "mkdir", "unlink", "rmdir",
    "rename", "replace",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The power goes after `at` operations; `keeps` is the share of unflushed ones that are there anyway."""

    at: int
    keeps: float
    seed: int = 0

    def write(self, log: Log, target: Path) -> None:
        """Make `target` what is found when the power is back."""
        chance = random.Random(f"{self.at}/{self.keeps}/{self.seed}")
        covered = _covered(log.ops[: self.at])
        names: dict[tuple[int, str], int] = {}
        contents: dict[int, bytearray] = {}
        database: tuple[bytes, bytes] = (b"", b"")
        for number, op in enumerate(log.ops[: self.at]):
            there = number in covered or chance.random() < self.keeps
            match op:
                case Commit():
                    database = op.files
                case Name() if there:
                    if op.other is not None:
                        names.pop(op.other, None)
                    if op.inode is None:
                        names.pop((op.directory, op.name), None)
                    else:
                        names[op.directory, op.name] = op.inode
                case Size() if there:
                    del contents.setdefault(op.inode, bytearray())[op.size :]
                case Data():
                    piece = op.content
                    if not there:
                        piece = chance.choice((b"", bytes(len(piece)), piece[: len(piece) // 2]))
                    held = contents.setdefault(op.inode, bytearray())
                    if piece:
                        held.extend(bytes(max(op.offset - len(held), 0)))
                        held[op.offset : op.offset + len(piece)] = piece
        target.mkdir()
        _plant(log, names, contents, 0, target)
        for name, content in zip(DATABASE, (database[0], self._torn(log, database, chance)), strict=True):
            if database[0]:
                (target / name).write_bytes(content)

    def _torn(self, log: Log, now: tuple[bytes, bytes], chance: random.Random) -> bytes:
        """The write-ahead log with a part of what the next commit appends."""
        following = next((op for op in log.ops[self.at :] if isinstance(op, Commit)), None)
        if following is None or following.files[0] != now[0] or not following.files[1].startswith(now[1]):
            return now[1]
        more = len(following.files[1]) - len(now[1])
        return following.files[1][: len(now[1]) + int(chance.random() * max(more - 1, 0))]


def _covered(ops: list[Op]) -> set[int]:
    """The numbers of those that a later flush has brought to disk."""
    covered: set[int] = set()
    waiting: dict[int, list[int]] = {}
    for number, op in enumerate(ops):
        match op:
            case Flush(inode=None):
                covered.update(*waiting.values())
                waiting.clear()
            case Flush():
                covered.update(waiting.pop(op.inode or 0, ()))
            case Name():
                waiting.setdefault(op.directory, []).append(number)
            case Data() | Size():
                waiting.setdefault(op.inode, []).append(number)
    return covered


def _plant(
    log: Log, names: dict[tuple[int, str], int], contents: dict[int, bytearray], directory: int, path: Path
) -> None:
    for (above, name), inode in names.items():
        if above != directory:
            continue
        kind, place = log.kinds[inode], path / name
        if isinstance(kind, bytes):
            place.symlink_to(os.fsdecode(kind))
        elif kind == "directory":
            place.mkdir(mode=0o755)
            _plant(log, names, contents, inode, place)
        else:
            place.write_bytes(contents.get(inode, b""))
            place.chmod(0o600)
