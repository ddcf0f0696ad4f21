"""What tests with real parts need of the machine, made before the first of them and undone after the last.

Also the machine's lock: tests that compare inventories of the whole machine must not run beside others that
make mounts and namespaces, in whatever checkout or process.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

LOCK = Path("/run/lock/crisp-tests.lock")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


PATIENCE = float(os.environ.get("CRISP_TESTS_PATIENCE", "1"))
"""What limits that only end a hang are multiplied by: 2 where another worker is beside (tests/apart)."""

EMULATED = 8.0
"""The patience of an emulated machine (tests/node): what takes 1 s takes 4 s to 8 s."""

ASYNCIO_DEBUG = "" if PATIENCE >= EMULATED else "1"
"""PYTHONASYNCIODEBUG of tests and daemons: on, but where keeping all calls' stacks takes most of the time."""

LOCK_LIMIT = 900.0  # seconds; longer than a test of another run may take


@contextmanager
def alone_on_the_machine(who: str = "") -> Iterator[None]:
    """Hold the lock that one test with real parts can hold at a time; it goes with the process."""
    if "CRISP_TESTS_HOLD_THE_LOCK" in os.environ:  # a run within a test, which holds it
        yield
        return
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+") as lock:
        _acquire(lock)
        lock.truncate(0)
        lock.write(f"process {os.getpid()}: {who}\n")
        lock.flush()
        yield


def _acquire(lock: TextIO) -> None:
    """Wait in the kernel's queue, but not for ever: a timer's signal ends the wait."""
    held = threading.Event()

    def give_up() -> None:
        if not held.is_set():
            os.write(2, f"{LOCK} is still held by {LOCK.read_text()}".encode())
            os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(LOCK_LIMIT, give_up)
    timer.daemon = True
    timer.start()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held.set()
    finally:
        timer.cancel()


def outside() -> tuple[str, ...]:
    """What a command is preceded by that needs the machine's own network: nothing unless it is hidden."""
    network = os.environ.get("CRISP_TESTS_OUTSIDE")
    return ("nsenter", f"--net={network}") if network else ()


@contextmanager
def prepared() -> Iterator[None]:
    """`/` shared, as systemd makes it and propagation needs; cgroup v1's hugetlb mounted, for crun."""
    with ExitStack() as undo:
        if not _root_is_shared():
            subprocess.run(["mount", "--make-rshared", "/"], check=True)
        if not os.path.ismount("/run/netns"):  # iproute2 makes it a shared mount of its own, once a boot
            subprocess.run(["ip", "netns", "add", "crisp-tests-first"], check=True)
            subprocess.run(["ip", "netns", "delete", "crisp-tests-first"], check=True)
        hugetlb = Path("/sys/fs/cgroup/hugetlb")
        if _is_version_1() and _has_controller("hugetlb") and not os.path.ismount(hugetlb):
            made = not hugetlb.exists()
            hugetlb.mkdir(exist_ok=True)
            if made:
                undo.callback(hugetlb.rmdir)
            subprocess.run(["mount", "-t", "cgroup", "-o", "hugetlb", "hugetlb", hugetlb], check=True)
            undo.callback(lambda: subprocess.run(["umount", hugetlb], check=True))
        yield


def _root_is_shared() -> bool:
    """The last mount on `/` decides (proc_pid_mountinfo(5), field 7)."""
    root = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split(" ")[4] == "/"
    ]
    return " shared:" in root[-1].partition(" - ")[0]


def _is_version_1() -> bool:
    return not Path("/sys/fs/cgroup/cgroup.controllers").exists()


def _has_controller(name: str) -> bool:
    rows = [line.split() for line in Path("/proc/cgroups").read_text().splitlines()[1:]]
    return any(row[0] == name and row[3] == "1" for row in rows)
