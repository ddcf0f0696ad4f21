"""The cgroups of containers and monitors as they are on this machine, versions 1 and 2: place, kill, remove.

Limits are the runtime's business, usage is `shim/stats.py`'s. Paths are the kernel's: below each hierarchy of
version 1, below the one mount of version 2. Functions block (microseconds; the first move after a quiet time
waits for a grace period of the kernel, about 10 ms): callers on the event loop use a thread, except for
`kill_everything`, which waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oci.cgroup import flat_keyed
from oci.errors import Absent, BadInput, Internal
from shim import process
from shim.kernel import mountinfo
from shim.records import ProcessRef

_KEPT: Final = frozenset({"", "/", ".", ".."})
_PREFERRED: Final = ("pids", "freezer", "memory", "name=systemd", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchies:
    """Where cgroups are mounted: version 1 by controller ("memory", "name=systemd"), version 2 or None.

    On a hybrid machine both are there and the controllers are version 1's.
    """

    v1: tuple[tuple[str, Path], ...] = ()
    v2: Path | None = None

    @property
    def unified(self) -> bool:
        """Whether version 2 has the controllers."""
        return not self.v1

    def roots(self) -> tuple[Path, ...]:
        """Every mounted hierarchy, each once (cpu and cpuacct are often one)."""
        roots = dict.fromkeys(root for _, root in self.v1)
        if self.v2 is not None:
            roots[self.v2] = None
        return tuple(roots)

    def of(self, controller: str) -> Path | None:
        """The hierarchy that has this controller, None when there is none."""
        if self.unified:
            return self.v2
        return dict(self.v1).get(controller)

    def listing(self) -> Path | None:
        """The hierarchy in which a container's processes are looked up."""
        if self.unified:
            return self.v2
        for controller in _PREFERRED:
            if (root := self.of(controller)) is not None:
                return root
        return self.v1[0][1]


def find_hierarchies(table: tuple[mountinfo.Mount, ...] | None = None) -> Hierarchies:
    """The hierarchies that are mounted now, from /proc/self/mountinfo. Blocking."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for mount in mountinfo.mounts() if table is None else table:
        if mount.type == "cgroup2" and v2 is None:
            v2 = Path(mount.target)
        elif mount.type == "cgroup":
            for option in mount.super_options:
                if option not in _V1_OPTIONS and not option.startswith(("release_agent=", "clone_children")):
                    v1.setdefault(option, Path(mount.target))
    return Hierarchies(v1=tuple(v1.items()), v2=v2)


_V1_OPTIONS: Final = frozenset({"rw", "ro", "xattr", "noprefix", "cpuset_v2_mode", "favordynmods"})


def _below(root: Path, path: str) -> Path:
    """The directory of a cgroup. Refuses the root and what leads out of the hierarchy."""
    parts = path.strip("/").split("/")
    if any(part in _KEPT for part in parts):
        raise BadInput(f"cgroup {path!r}: not the path of a cgroup below the root")
    return root.joinpath(*parts)


class Cgroups:
    """The machine's cgroups, seen through one set of hierarchies."""

    def __init__(self, hierarchies: Hierarchies, *, io: Executor | None = None) -> None:
        self.hierarchies = hierarchies
        self._io = io

    def make(self, path: str) -> None:
        """Make a cgroup, with its parents, in every hierarchy; one that exists is left as it is.

        Raises Internal naming the directory.
        """
        for root in self.hierarchies.roots():
            directory = _below(root, path)
            if directory.is_dir():
                continue
            try:
                _make_cpuset(root, directory)
            except OSError as error:
                raise _failure("making the cgroup", directory, error) from error

    def place(self, path: str, pid: int) -> None:
        """Move a process into a cgroup that `make` made, in every hierarchy. Raises Internal."""
        for root in self.hierarchies.roots():
            directory = _below(root, path)
            try:
                _write(directory / "cgroup.procs", str(pid))
            except FileNotFoundError:  # removed by someone since
                self.make(path)
                _write(directory / "cgroup.procs", str(pid))
            except OSError as error:
                raise _failure(f"moving process {pid} into the cgroup", directory, error) from error

    def processes(self, path: str) -> list[int]:
        """The processes in a cgroup and below; empty when it does not exist. Zombies do not count."""
        root = self.hierarchies.listing()
        return [] if root is None else list(_processes(_below(root, path)))

    def oom_kills(self, path: str) -> int | None:
        """How many processes of a cgroup the kernel killed for want of memory; None when it does not say.

        `oom_kill` of memory.events (version 2) or memory.oom_control (version 1, Linux 4.13).
        """
        root = self.hierarchies.of("memory")
        if root is None:
            return None
        name = "memory.events" if self.hierarchies.unified else "memory.oom_control"
        try:
            text = (_below(root, path) / name).read_text("ascii")
        except OSError:
            return None
        return flat_keyed(text).get("oom_kill")

    def oom_kills_of_gone(self, path: str) -> int | None:
        """How many OOM kills were in scopes that systemd has removed, `path`'s among them or not.

        The parent's count, which has its children's in version 2 (cgroup-v2.rst, memory.events), without what
        the scopes tell that are still there. None where that says nothing: no scope, or a parent with other
        groups than a pod's.
        """
        root = self.hierarchies.of("memory")
        parent, _, leaf = path.rpartition("/")
        if root is None or not self.hierarchies.unified or not parent or not leaf.endswith(".scope"):
            return None
        total = self.oom_kills(parent)
        try:
            there = [
                one.name for one in os.scandir(_below(root, parent)) if one.is_dir(follow_symlinks=False)
            ]
        except OSError:
            return None
        kind = leaf.rpartition("-")[0]
        if total is None or any(name.rpartition("-")[0] != kind for name in there):
            return None
        return total - sum(self.oom_kills(f"{parent}/{name}") or 0 for name in there)

    def path_of(self, pid: int) -> str:
        """The cgroup that a process is in, "" when it is gone or in the root of the hierarchy."""
        try:
            text = os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes())
        except OSError:
            return ""
        wanted = "" if self.hierarchies.unified else self._listed_controller()
        for line in text.splitlines():
            _, controllers, path = line.split(":", 2)
            if wanted in controllers.split(","):
                return "" if path == "/" else path
        return ""

    def _listed_controller(self) -> str:
        root = self.hierarchies.listing()
        return next(name for name, directory in self.hierarchies.v1 if directory == root)

    def remove(self, path: str) -> None:
        """Remove a cgroup with what is below it, in every hierarchy; absent is success.

        One that still holds processes is left and named in the Internal that is raised.
        """
        stuck: list[str] = []
        for root in self.hierarchies.roots():
            try:
                _remove(_below(root, path))
            except OSError as error:
                stuck.append(f"{error.filename}: {error.strerror}")
        if stuck:
            raise Internal(f"removing the cgroup {path}: {'; '.join(stuck)}")

    def is_empty(self, path: str) -> bool:
        """Whether no process lives in a cgroup or below it.

        Does not wait: the kernel has the lists in memory, and a thread would take longer to begin.
        """
        root = self.hierarchies.listing()
        return root is None or not _references(_below(root, path))

    async def kill_everything(
        self,
        path: str,
        *,
        timeout: float,  # noqa: ASYNC109 - the answer tells
        number: int = signal.SIGKILL,
        first: ProcessRef | None = None,
    ) -> list[int]:
        """Kill every process in a cgroup and below until none is left; those that remain after `timeout`.

        `first` belongs to them wherever it is: somebody may have moved it, or removed the cgroup. With
        another signal than KILL everything gets it once and nothing is waited for.
        """
        root = self.hierarchies.listing()
        if root is None:
            return []
        directory = _below(root, path)
        loop = asyncio.get_running_loop()

        def look() -> list[ProcessRef]:
            refs = _references(directory)
            outside = first is not None and first not in refs and process.alive(first)
            return [*refs, first] if first is not None and outside else refs

        if number != signal.SIGKILL:
            for ref in await loop.run_in_executor(self._io, look):
                process.signal(ref, number)
            return []
        until = time.monotonic() + timeout
        while refs := await loop.run_in_executor(self._io, look):
            if os.getpid() in (ref.pid for ref in refs):
                raise Internal(f"cgroup {path} holds the daemon itself: its processes are not killed")
            if first is not None:
                process.signal(first, number)
            await loop.run_in_executor(self._io, self._kill, path, directory, refs)
            left = until - time.monotonic()
            gone = await asyncio.gather(*(process.wait_gone(ref, max(left, 0)) for ref in refs))
            if time.monotonic() >= until:
                return [ref.pid for ref, is_gone in zip(refs, gone, strict=True) if not is_gone]
        return []

    def _kill(self, path: str, directory: Path, refs: list[ProcessRef]) -> None:
        """cgroup.kill (version 2, Linux 5.14) takes all at once, forks in flight included."""
        try:
            _write(directory / "cgroup.kill", "1")
        except OSError:
            for ref in refs:
                process.signal(ref, signal.SIGKILL)
            freezer = None if self.hierarchies.unified else self.hierarchies.of("freezer")
            if freezer is not None:  # a frozen process does not die before it is thawed
                for group, _, _ in os.walk(_below(freezer, path)):
                    with contextlib.suppress(OSError):
                        _write(Path(group) / "freezer.state", "THAWED")


def _make_cpuset(root: Path, directory: Path) -> None:
    """Make the directory; in version 1's cpuset it takes no process until it has cpus and memory nodes."""
    for parent in reversed([directory, *directory.parents]):
        if root not in parent.parents:
            continue
        with contextlib.suppress(FileExistsError):
            parent.mkdir(mode=0o755)
        for name in ("cpuset.cpus", "cpuset.mems"):
            own = parent / name
            with contextlib.suppress(FileNotFoundError):
                # version 2 inherits by itself, and its controller is off unless someone turned it on
                if not (root / "cgroup.controllers").exists() and not own.read_text("ascii").strip():
                    _write(own, (parent.parent / name).read_text("ascii").strip())


def _processes(directory: Path) -> Iterator[int]:
    try:
        text = (directory / "cgroup.procs").read_text("ascii")
        below = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return
        if error.errno != errno.EOPNOTSUPP:  # a threaded cgroup; its processes are listed by its domain
            raise
        return
    for line in text.split():
        if line != "0":  # a process of another pid namespace
            yield int(line)
    for path in below:
        yield from _processes(Path(path))


def _references(directory: Path) -> list[ProcessRef]:
    refs = []
    for pid in _processes(directory):
        with contextlib.suppress(Absent):
            refs.append(process.reference(pid))
    return [ref for ref in refs if process.alive(ref)]


def _remove(directory: Path) -> None:
    try:
        below = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for path in below:
        _remove(Path(path))
    with contextlib.suppress(FileNotFoundError):
        directory.rmdir()


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # never creates: cgroupfs would say EPERM
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _failure(stage: str, directory: Path, error: OSError) -> Internal:
    name = errno.errorcode.get(error.errno or 0, "")
    return Internal(f"{stage} {directory}: {error.strerror} ({name})")
