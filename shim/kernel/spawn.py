"""Starting a program without stopping the interpreter: posix_spawn(3), called while the GIL is free.

Python's own ways hold the GIL until the new process has executed its program, since the parent of a vfork is
suspended until then. On a busy machine the new process waits for a processor meanwhile, for tens of
milliseconds, and with it every thread of the daemon. Here only the calling thread waits.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from shim.kernel.libc import failure

# spawn.h of glibc; posix_spawnattr_t has 336 bytes and posix_spawn_file_actions_t 80 where they are largest.
_SETPGROUP: Final = 0x02
_SETSIGDEF: Final = 0x04
_SETSIGMASK: Final = 0x08
_ROOM: Final = 1024
_SIGSET_SIZE: Final = 128  # bytes of sigset_t
_RESTORED: Final = (signal.SIGPIPE, signal.SIGXFSZ)  # what Python ignores and programs expect

_libc = ctypes.CDLL(None)


def start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: Path | None = None,
    keep: Sequence[int] = (),
) -> int:
    """The pid of a child that leads a process group of its own; blocks until it executes its program.

    A descriptor that is None becomes /dev/null; `keep` stay open under their numbers, all others are closed.
    A name without a slash is looked up on the PATH of `environment`. The caller must reap the child, which
    is in the cgroup and has the priority of the calling thread. Raises OSError, whose filename tells a
    missing `cwd` from a missing program, and ValueError for a NUL.
    """
    words = [_text(word) for word in argv]
    settings = [_text(f"{name}={value}") for name, value in environment.items()]
    program = _found(argv[0], environment.get("PATH", ""))
    actions = ctypes.create_string_buffer(_ROOM)
    attributes = ctypes.create_string_buffer(_ROOM)
    _check(_libc.posix_spawn_file_actions_init(actions))
    try:
        _check(_libc.posix_spawnattr_init(attributes))
        try:
            _describe(actions, {0: stdin, 1: stdout, 2: stderr}, cwd, keep)
            _reset(attributes)
            pid = ctypes.c_int()
            number = _libc.posix_spawn(
                ctypes.byref(pid), _text(program), actions, attributes, _vector(words), _vector(settings)
            )
        finally:
            _libc.posix_spawnattr_destroy(attributes)
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)
    if number:
        astray = number == errno.ENOENT and cwd is not None and not cwd.is_dir()
        raise failure(number, "posix_spawn", os.fspath(cwd) if astray and cwd is not None else argv[0])
    return pid.value


def _describe(
    actions: ctypes.Array[ctypes.c_char],
    standard: Mapping[int, int | None],
    cwd: Path | None,
    keep: Sequence[int],
) -> None:
    """What the child does before it executes, in this order: descriptors first, its directory last."""
    for number, source in standard.items():
        if source is None:
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY
            _check(_libc.posix_spawn_file_actions_addopen(actions, number, b"/dev/null", flags, 0))
        else:
            _check(_libc.posix_spawn_file_actions_adddup2(actions, source, number))
    for descriptor in keep:  # onto itself: that is how it loses close-on-exec (POSIX.1-2024, glibc 2.29)
        _check(_libc.posix_spawn_file_actions_adddup2(actions, descriptor, descriptor))
    highest = max((2, *keep))
    for descriptor in set(range(3, highest)) - set(keep):
        _check(_libc.posix_spawn_file_actions_addclose(actions, descriptor))
    _check(_libc.posix_spawn_file_actions_addclosefrom_np(actions, highest + 1))
    if cwd is not None:
        _check(_libc.posix_spawn_file_actions_addchdir_np(actions, _text(os.fspath(cwd))))


def _reset(attributes: ctypes.Array[ctypes.c_char]) -> None:
    """A process group of its own, no signal blocked, none ignored that Python ignores.

    Not a session: where the kernel shares processors by sessions (sched(7), autogroup), a new one runs late.
    Measured on a busy machine: `runc exec` 46 ms with a session, 28 ms without.
    """
    none, restored = ctypes.create_string_buffer(_SIGSET_SIZE), ctypes.create_string_buffer(_SIGSET_SIZE)
    _libc.sigemptyset(none)
    _libc.sigemptyset(restored)
    for number in _RESTORED:
        _libc.sigaddset(restored, int(number))
    _check(_libc.posix_spawnattr_setsigmask(attributes, none))
    _check(_libc.posix_spawnattr_setsigdefault(attributes, restored))
    setflags: Callable[..., int] = _libc.posix_spawnattr_setflags
    _check(setflags(attributes, ctypes.c_short(_SETPGROUP | _SETSIGDEF | _SETSIGMASK)))


def _found(name: str, path: str) -> str:
    """The program as execvp(3) finds it. Raises FileNotFoundError."""
    if "/" in name:
        return name
    for directory in path.split(":"):
        candidate = f"{directory}/{name}"
        if os.access(candidate, os.X_OK) and os.path.isfile(candidate):  # noqa: PTH113 - one system call
            return candidate
    raise failure(errno.ENOENT, "posix_spawn", name)


def _vector(words: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


def _text(value: str) -> bytes:
    encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def _check(number: int) -> None:
    if number:
        raise failure(number, "posix_spawn")
