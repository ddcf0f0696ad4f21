"""Small files and directories of Crisp's own: whole or not at all, private, removed without going astray.

Blocking; callers on the event loop use a thread. Knows nothing about what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from oci.errors import Full, Internal
from shim.kernel import libc
from shim.kernel.openat2 import Resolve, openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_DEPTH = 32

WRITABLE_AGAIN = "make its file system writable again, it is read-only (if nobody did that, dmesg says why)"


def write_atomic(path: str | Path, data: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Replace the file at `path` by one with `data`: readers see the old or the new, never a part.

    With `durable` it is on disk, name included, when this returns. Raises OSError; the old file stays then.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, stat.S_IRUSR
    )
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fchmod(descriptor, mode)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    if durable:
        sync_directory(target.parent)


@contextlib.contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Tell a failure of the file system by its kind: Full, else Internal, with the path and the errno."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "no errno")
        words = f"{what}: {error.filename or path}: {error.strerror} ({name})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Full(f"{words}, free some space on its file system") from error
        if error.errno == errno.EROFS:
            raise Internal(f"{words}, {WRITABLE_AGAIN}") from error
        raise Internal(words) from error


def is_read_only(directory: Path) -> bool:
    """Whether the directory's file system, or its mount, refuses every write. Blocking.

    It is tried: one that the kernel has given up (ext4 after an error) does not say so in its flags.
    """
    try:
        with tempfile.TemporaryFile(dir=directory):
            return False
    except OSError as error:
        return error.errno == errno.EROFS


def sync_directory(path: str | Path) -> None:
    """Bring the names in a directory to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(directory: Path) -> None:
    """Bring all of the file system to disk that the directory is on. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc.call("syncfs", descriptor, path=str(directory))
    finally:
        os.close(descriptor)


def make_private_directory(path: str | Path, mode: int = 0o700) -> Path:
    """Make a directory (parents with 0755) of exactly that mode, or bring an existing one to it.

    Raises Internal when something else has the name or another user owns it, OSError.
    """
    target = Path(path)
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        target.mkdir(mode=mode)
    status = target.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise Internal(f"{target} must be a directory of Crisp's own and is something else")
    if status.st_uid != os.geteuid():
        raise Internal(f"{target} belongs to user {status.st_uid}, not to the daemon's user {os.geteuid()}")
    if stat.S_IMODE(status.st_mode) != mode:
        target.chmod(mode)
    return target


def remove_tree(path: str | Path) -> None:
    """Remove a file or a directory with all that is in it; absent is success.

    Never follows a link and never enters a mount, bind mounts of the same file system included: where one is
    in the way, Internal names it and what lies behind it is untouched. Depth is no limit.
    """
    target = Path(path)
    try:
        parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove(parent, target.name, target)
    finally:
        os.close(parent)


def _remove(parent: int, name: str, shown: Path) -> None:
    if _unlink(parent, name, shown):
        return
    top = _enter(parent, name, shown)
    if top is None:
        return
    try:
        while True:  # directories too deep for the stack are moved up here, and emptied in the next round
            _empty(top, top, shown, 0)
            with os.scandir(top) as rest:
                if next(rest, None) is None:
                    break
    finally:
        os.close(top)
    _rmdir(parent, name, shown)


def _empty(directory: int, top: int, shown: Path, depth: int) -> None:
    with os.scandir(directory) as listing:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing]
    for name, is_directory in entries:
        below = shown / name
        if not is_directory and _unlink(directory, name, below):
            continue
        if depth >= _DEPTH:
            _lift(directory, name, top, below)
            continue
        inner = _enter(directory, name, below)
        if inner is None:
            continue
        try:
            _empty(inner, top, below, depth + 1)
        finally:
            os.close(inner)
        _rmdir(directory, name, below)


def _lift(directory: int, name: str, top: int, shown: Path) -> None:
    try:
        os.rename(name, f".deep-{secrets.token_hex(8)}", src_dir_fd=directory, dst_dir_fd=top)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Internal(f"{shown} is a mount point, it is not removed (EBUSY)") from error
        raise


def _unlink(parent: int, name: str, shown: Path) -> bool:
    """Unlink what is no directory; False when it is one."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError) as error:
        if error.errno == errno.EISDIR or stat.S_ISDIR(
            os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        ):
            return False
        raise
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Internal(f"{shown} is a mount point, it is not removed (EBUSY)") from error
        raise
    return True


def _enter(parent: int, name: str, shown: Path) -> int | None:
    try:
        return openat2(parent, name, _DIRECTORY, Resolve.NO_XDEV | Resolve.NO_SYMLINKS)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise Internal(f"{shown} is a mount point, it is not removed (EXDEV)") from error
        raise


def _rmdir(parent: int, name: str, shown: Path) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Internal(f"{shown} is a mount point, it is not removed (EBUSY)") from error
        raise
