"""The place of a run: namespaces of its own, so that nothing on the machine is touched and nothing stays.

`enter` runs the program again inside new mount, network and process-id namespaces under an init that reaps.
When it ends, the kernel takes mounts, links, firewall rules and processes with it; only cgroups are left to
`remove_groups`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from shim.cgroups import Cgroups, find_hierarchies

TREE = Path(__file__).resolve().parents[1]
GROUPS = "/bench"  # the cgroup that the runs' own are below
_INSIDE = "CRISP_BENCHMARK_INSIDE"
_PREPARE = """\
set -e
mount --make-rshared /
mkdir -p /run/netns /var/lib/cni
mount -t tmpfs tmpfs /run/netns
mount -t tmpfs tmpfs /var/lib/cni
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
exec catatonit -- "$@"
"""


def enter(arguments: Sequence[str]) -> int | None:
    """None inside; outside, the exit status of the run that was made inside."""
    if os.environ.pop(_INSIDE, ""):
        return None
    if os.geteuid() != 0:
        raise PermissionError("a benchmark of container runtimes needs root")
    for program in ("unshare", "catatonit", "conmon", "runc", "ip"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            raise FileNotFoundError(f"{program} is not installed, see tests/parts/debian.txt")
    namespaces = ["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(
        ["unshare", *namespaces, "sh", "-c", _PREPARE, "sh", *command],
        cwd=TREE,
        env={
            **os.environ,
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            _INSIDE: "1",
        },
        check=False,
    )
    return done.returncode


def unmount_below(top: Path) -> None:
    """Detach whatever is still mounted in a directory, so that it can be removed."""
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if point.startswith(f"{top}/"):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def hierarchies() -> list[Path]:
    """Where cgroups are mounted."""
    found: dict[str, None] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split(" ")[0] in ("cgroup", "cgroup2"):
            found[left.split(" ")[4]] = None
    return [Path(path) for path in found]


@contextlib.contextmanager
def groups(path: str) -> Iterator[None]:
    """Remove a run's cgroup with all below it at the end; its parent too, unless it was there before.

    What still runs in there is killed when the run has failed: its own words must not be lost behind that.
    """
    there = any(_groups(GROUPS))
    make_group(path)
    try:
        yield
    except BaseException:
        for pid in Cgroups(find_hierarchies()).processes(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise
    finally:
        remove_groups(path)
        if not there:
            remove_groups(GROUPS)


def make_group(path: str) -> None:
    """Make a pod's cgroup in every hierarchy, as kubelet does before it asks for the pod."""
    for root in hierarchies():
        group = root
        for part in Path(path.lstrip("/")).parts:
            parent, group = group, group / part
            with contextlib.suppress(FileExistsError):
                group.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):  # version 1 does not inherit them by itself
                if (group / name).exists() and not (group / name).read_text().strip():
                    with contextlib.suppress(OSError):
                        (group / name).write_text((parent / name).read_text())


def remove_groups(path: str, *, grace: float = 10.0) -> None:
    """Remove a cgroup and all below it, in every hierarchy, once their last processes are gone."""
    deadline = time.monotonic() + grace
    left = list(_groups(path))
    while left:
        for group in left:
            with contextlib.suppress(OSError):
                group.rmdir()
        left = list(_groups(path))
        if left and time.monotonic() > deadline:
            raise TimeoutError(f"{len(left)} cgroups are still there, such as {left[0]}")
        if left:
            time.sleep(0.02)


def _groups(path: str) -> Iterator[Path]:
    """The group and all below, the deepest first."""
    for root in hierarchies():
        for directory, _, _ in os.walk(root / path.lstrip("/"), topdown=False):
            yield Path(directory)
