"""Container log files: finding them by name without a daemon, reading, following them through rotation.

Owns file access only; the format is `oci/logline.py`'s. Layout: NAMESPACE_POD_UID/CONTAINER/ATTEMPT.log, as
kubelet makes it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from cli.inventory import Container, Inventory, Pod
from oci import logline
from oci.errors import Absent, BadInput, CrispError, Internal
from oci.logline import Joiner, Output

_BLOCK = 256 * 1024
_LONGEST_LINE = 4 * 1024 * 1024  # runtimes cut lines at 16 KiB; a file with longer ones is no log

KeepOn = Callable[[], bool]
"""Waits a moment at the end of the file; False when nothing more can come."""


def offline(directories: Mapping[str, Path]) -> Inventory:
    """What the log directories of each realm tell of pods and containers. Their ids are paths."""
    pods: dict[str, Pod] = {}
    containers: dict[str, Container] = {}
    for realm, directory in directories.items():
        for entry in _entries(directory):
            namespace, _, rest = entry.name.partition("_")
            name, _, uid = rest.rpartition("_")
            if not (namespace and name):
                continue
            id_ = str(entry)
            pods[id_] = Pod(
                id=id_,
                realm=realm,
                namespace=namespace,
                name=name,
                uid=uid,
                state="unknown",
                created_at=_modified(entry),
            )
            for attempt, path in _attempts_in(entry):
                containers[str(path)] = Container(
                    id=str(path),
                    pod_id=id_,
                    realm=realm,
                    name=path.parent.name,
                    attempt=attempt,
                    state="unknown",
                    log_path=str(path),
                )
    return Inventory(pods=pods, containers=containers)


def previous(path: Path) -> Path:
    """The log of the attempt before the one that logs into `path`. Raises Absent."""
    number = int(path.stem) if path.stem.isdecimal() else 0
    earlier = [(n, p) for n, p in _attempts(path.parent) if n < number]
    if not earlier:
        raise Absent(f"{path}: no log of an earlier attempt is kept beside it")
    return max(earlier)[1]


def read(
    path: Path, *, tail: int | None = None, since: int = 0, keep_on: KeepOn | None = None
) -> Iterator[Output]:
    """The container's output, the last `tail` lines of it, not before `since` (ns since the Unix epoch).

    With `keep_on` it goes on at the end of the file for as long as that says, and into the file that
    replaces a rotated one. Raises Absent, Internal (errno).
    """
    joiner = Joiner()
    seen = since <= 0
    for line in _lines(path, tail=tail, keep_on=keep_on):
        if line is None:  # at the end for now
            if seen:
                yield from joiner.flush()
            continue
        try:
            parsed = logline.parse(line)
        except BadInput:
            # a line torn by a power cut, or not of a runtime: better seen as it is than lost
            if seen:
                yield Output(time=b"", stream="stdout", content=line + b"\n")
            continue
        if not seen:
            if logline.nanoseconds(parsed.time) < since:
                continue
            seen = True
        yield from joiner.feed(parsed)
    if seen:
        yield from joiner.flush()


def _lines(path: Path, *, tail: int | None, keep_on: KeepOn | None) -> Iterator[bytes | None]:
    """Whole lines without their newlines; None whenever the end is reached for now."""
    file = _open(path)
    try:
        if tail is not None:
            file.seek(_tail_offset(file, tail))
        rest = b""
        while True:
            while block := file.read(_BLOCK):
                *whole, rest = (rest + block).split(b"\n")
                yield from whole
                if len(rest) > _LONGEST_LINE:
                    raise Internal(f"log {path}: a line is longer than {_LONGEST_LINE} bytes, this is no log")
            if keep_on is None:
                break
            yield None
            # In this order: what came before the answer is still read after it.
            going_on = keep_on()
            successor = _successor(path, file)
            if successor is not None:
                yield from _remains(file, rest)
                file.close()
                file, rest = successor, b""
            elif file.tell() > os.fstat(file.fileno()).st_size:  # truncated in place
                file.seek(0)
                rest = b""
            elif not going_on:
                keep_on = None
        if rest:
            yield rest
    finally:
        file.close()


def _remains(file: BinaryIO, rest: bytes) -> Iterator[bytes]:
    """What was written into the old file before its writer went over to the new one."""
    while block := file.read(_BLOCK):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _open(path: Path) -> BinaryIO:
    try:
        # Not blocking: something that is no file must not hold us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Absent(f"log {path} does not exist (any more)") from None
    except OSError as error:
        raise _failure(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Internal(f"log {path} is not a file")
    return os.fdopen(descriptor, "rb", buffering=0)


def _failure(path: Path, error: OSError) -> CrispError:
    hint = "; try `sudo crisp`" if isinstance(error, PermissionError) else ""
    return Internal(f"log {path}: {error.strerror} (errno {error.errno}){hint}")


def _successor(path: Path, file: BinaryIO) -> BinaryIO | None:
    """The file that took the place of the one that is open; None while there is none."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return None  # renamed, and its writer was not told yet
    except OSError as error:
        raise _failure(path, error) from None
    here = os.fstat(file.fileno())
    if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
        return None
    return _open(path)


def _tail_offset(file: BinaryIO, count: int) -> int:
    """Where the last `count` output lines begin. Reads from the end, twice as much each time."""
    end = file.seek(0, os.SEEK_END)
    if count == 0:
        return end
    span = _BLOCK
    while True:
        start = max(0, end - span)
        data = os.pread(file.fileno(), end - start, start)
        lines = data.split(b"\n")
        # The first piece may be the end of a line; the last is empty, or a line that is being written.
        offset, missing = end - len(lines[-1]), count
        whole = lines[1:-1] if start else lines[:-1]
        for line in reversed(whole):
            if not _goes_on(line):
                if missing == 0:
                    return offset
                missing -= 1
            offset -= len(line) + 1
        if start == 0:
            return 0
        span *= 2


def _goes_on(line: bytes) -> bool:
    parts = line.split(b" ", 3)
    return len(parts) >= 3 and parts[2][:1] == b"P"


def _entries(directory: Path) -> list[Path]:
    try:
        return [entry for entry in directory.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _failure(directory, error) from None


def _attempts_in(pod: Path) -> Iterator[tuple[int, Path]]:
    for container in _entries(pod):
        yield from _attempts(container)


def _attempts(directory: Path) -> list[tuple[int, Path]]:
    return [(int(p.stem), p) for p in directory.glob("*.log") if p.stem.isdecimal()]


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
