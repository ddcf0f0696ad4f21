"""A filter of system calls (seccomp(2)): whoever gives itself one can make the calls it names, and no others.

Any other call ends the whole process with SIGSYS, as does one in the convention of another architecture,
whose numbers mean other calls. The program is classic BPF over `struct seccomp_data` (kernel:
Documentation/userspace-api/seccomp_filter.rst). Knows a few calls by number: those that Crisp's own confined
processes need. Profiles of containers are the runtimes' matter.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from shim.kernel import libc

_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, operand
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data

KILL: Final = 0x80000000  # SECCOMP_RET_KILL_PROCESS, Linux 4.14
ALLOW: Final = 0x7FFF0000

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """An architecture: how `seccomp_data` names it (linux/audit.h), and its numbers of system calls.

    From `beyond` on numbers belong to another convention that has the same name (x32 on x86_64).
    """

    audit: int
    beyond: int
    calls: Mapping[str, int]


MACHINES: Final[Mapping[str, Machine]] = MappingProxyType(
    {
        "x86_64": Machine(
            audit=0xC000003E,
            beyond=0x40000000,
            calls=MappingProxyType(
                {
                    "brk": 12, "clock_gettime": 228, "close": 3, "exit": 60, "exit_group": 231, "fchdir": 81,
                    "fchmod": 91, "fchmodat": 268, "fchown": 93, "fchownat": 260, "fcntl": 72,
                    "fsetxattr": 190, "fstat": 5, "ftruncate": 77, "futex": 202, "getpid": 39,
                    "linkat": 265, "lseek": 8, "lsetxattr": 189, "madvise": 28, "mkdirat": 258,
                    "mknodat": 259, "mmap": 9, "mprotect": 10, "mremap": 25, "munmap": 11,
                    "newfstatat": 262, "openat": 257, "pread64": 17, "pwrite64": 18, "read": 0,
                    "restart_syscall": 219, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
                    "sched_yield": 24, "setxattr": 188, "sigaltstack": 131, "symlinkat": 266, "umask": 95,
                    "utimensat": 280, "write": 1,
                }
            ),
        ),
        "aarch64": Machine(
            audit=0xC00000B7,
            beyond=0x40000000,
            calls=MappingProxyType(
                {
                    "brk": 214, "clock_gettime": 113, "close": 57, "exit": 93, "exit_group": 94, "fchdir": 50,
                    "fchmod": 52, "fchmodat": 53, "fchown": 55, "fchownat": 54, "fcntl": 25,
                    "fsetxattr": 7, "fstat": 80, "ftruncate": 46, "futex": 98, "getpid": 172,
                    "linkat": 37, "lseek": 62, "lsetxattr": 6, "madvise": 233, "mkdirat": 34,
                    "mknodat": 33, "mmap": 222, "mprotect": 226, "mremap": 216, "munmap": 215,
                    "newfstatat": 79, "openat": 56, "pread64": 67, "pwrite64": 68, "read": 63,
                    "restart_syscall": 128, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
                    "sched_yield": 124, "setxattr": 5, "sigaltstack": 132, "symlinkat": 36, "umask": 166,
                    "utimensat": 88, "write": 64,
                }
            ),
        ),
    }
)  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def compose(names: Iterable[str], machine: str) -> bytes:
    """The filter that allows the named calls; `machine` as `uname -m` says it.

    Raises OSError (ENOSYS) for a machine whose numbers are not known here, KeyError for a call.
    """
    known = MACHINES.get(machine)
    if known is None:
        raise libc.failure(errno.ENOSYS, f"no system call filter for {machine}")
    numbers = sorted({known.calls[name] for name in names})
    pack = _INSTRUCTION.pack
    program = [
        pack(_LOAD, 0, 0, _ARCHITECTURE_AT),
        pack(_IF_EQUAL, 1, 0, known.audit),
        pack(_RETURN, 0, 0, KILL),
        pack(_LOAD, 0, 0, _NUMBER_AT),
        pack(_IF_AT_LEAST, len(numbers), 0, known.beyond),
        # the n-th comparison of so many jumps over those that follow it and over KILL
        *(pack(_IF_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)),
        pack(_RETURN, 0, 0, KILL),
        pack(_RETURN, 0, 0, ALLOW),
    ]
    return b"".join(program)


def apply(program: bytes) -> None:
    """Put the calling thread under the filter, for good, and every thread that it starts.

    `no_new_privs` must have been set before, or the process be privileged. Raises OSError (EINVAL where the
    kernel has no filters).
    """
    libc.call("prctl", _PR_SET_SECCOMP, _MODE_FILTER, _Program(len(program) // _INSTRUCTION.size, program))
