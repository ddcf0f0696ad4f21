"""The walls around a process that unpacks a layer, put up by itself before it reads the first byte.

Namespaces of its own with nothing in them, one directory as its root, the capabilities that files of an
image need and no more, limits of memory and time, and a filter of system calls. What the process does behind
them is `unpack.py`'s matter.
"""

from __future__ import annotations

import errno
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.kernel import capabilities, libc, mount, seccomp

CALLS: Final = (
    # what the layer is made with
    "fchdir", "fchmod", "fchmodat", "fchown", "fchownat", "fsetxattr", "fstat", "ftruncate", "linkat",
    "lsetxattr", "mkdirat", "mknodat", "newfstatat", "openat", "pwrite64", "setxattr", "symlinkat", "umask",
    "utimensat",
    # what the tar is read and the result is told with
    "close", "fcntl", "lseek", "pread64", "read", "write",
    # what the interpreter lives and ends by
    "brk", "clock_gettime", "exit", "exit_group", "futex", "getpid", "madvise", "mmap", "mprotect", "mremap",
    "munmap", "restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_yield",
    "sigaltstack",
)  # fmt: skip
"""Among what is missing: starting a program or a process, any socket, mounts, namespaces, signals, ioctl."""

# Owners, modes and times of any file, set-id bits, device nodes, trusted.* and security.* attributes.
_KEPT: Final = (
    capabilities.CHOWN, capabilities.DAC_OVERRIDE, capabilities.FOWNER, capabilities.FSETID,
    capabilities.MKNOD, capabilities.SETFCAP, capabilities.SYS_ADMIN,
)  # fmt: skip
_CLONE_NEWNS, _CLONE_NEWNET, _CLONE_NEWIPC, _CLONE_NEWUTS = 0x20000, 0x40000000, 0x8000000, 0x4000000
_INERT: Final = mount.Flag.NODEV | mount.Flag.NOSUID | mount.Flag.NOEXEC
_PR_SET_NO_NEW_PRIVS: Final = 38


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much memory (bytes of address space) and processor time (seconds) the process may take."""

    memory: int = 2 << 30
    seconds: int = 900


def confine(directory: int) -> None:
    """Give up network, mounts, everything above `directory`, and what is not needed below it.

    The descriptor then shows the directory by a mount on which no device node opens: the process can make
    nodes, and one of the host's disk would lead past every wall. For a process of one thread; all that it
    will import must have been imported. Raises OSError.
    """
    path = Path(f"/proc/self/fd/{directory}").readlink()
    libc.call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.call("unshare", _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS)
    mount.set_propagation("/", mount.Flag.PRIVATE, recursive=True)
    mount.bind(path, path)
    mount.mount("none", path, flags=mount.Flag.REMOUNT | mount.Flag.BIND | _INERT)
    inert = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    if not os.path.samestat(os.fstat(inert), os.fstat(directory)):
        raise OSError(errno.ESTALE, "the directory was moved")
    os.dup2(inert, directory)  # the inherited one leads around that mount
    os.close(inert)
    os.fchdir(directory)
    os.chroot(".")
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    capabilities.keep(_KEPT)
    seccomp.apply(seccomp.compose(CALLS, os.uname().machine))


def limit(bounds: Bounds) -> None:
    """Bound memory and processor time of the process; its descriptors are as many as it may have."""
    resource.setrlimit(resource.RLIMIT_AS, (bounds.memory, bounds.memory))
    resource.setrlimit(resource.RLIMIT_CPU, (bounds.seconds, bounds.seconds + 1))  # SIGXCPU, then SIGKILL
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
