"""The process that makes layers ready: one for all, no longer than it is needed, and not after the daemon."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from oci.errors import Internal
from shim.images import layer_process
from shim.images.layer_worker import NICE
from shim.kernel import pidfd
from shim.process import wait_gone
from shim.records import ProcessRef
from tests.component.images.rig import content, failure, opened, run
from tests.doubles.registry import Answer, Registry, Request, tar_of

TREE = Path(__file__).parents[3]
BIG = tar_of({"big": random.Random(5).randbytes(3_000_000)})


def processes(of: int) -> list[ProcessRef]:
    """The processes for layers that are children of `of`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"shim.images.layer_worker" in words and parent == of:
            seen = pidfd.read_stat(int(entry.name))
            if seen is not None:
                found.append(ProcessRef(pid=int(entry.name), start_time=seen[1]))
    return found


class Halfway:
    """Reactions of a registry that hold blobs back, for what must be seen while they come."""

    def __init__(self, double: Registry, *blobs: str) -> None:
        self.reached = threading.Barrier(len(blobs) + 1, timeout=30)
        self.held = threading.Event()
        for blob in blobs:
            double.on(f"blobs/{blob}", self, times=1)

    def __call__(self, _request: Request, right: Answer) -> Answer:
        self.reached.wait()
        right.hold = self.held
        return right


def test_pulls_share_a_process_of_low_priority_that_ends_with_the_store(double: Registry, home: Path) -> None:
    one = double.push("app", "1", [tar_of({"one": b"1"})])
    two = double.push("app", "2", [tar_of({"two": b"2"})])
    halfway = Halfway(double, *one.layers, *two.layers)

    async def story() -> None:
        async with opened(home) as store:
            pulls = asyncio.gather(*(store.pull(double.reference(f"app:{tag}")) for tag in "12"))
            await asyncio.to_thread(halfway.reached.wait)
            (worker,) = processes(os.getpid())
            lowered = min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, 19)
            assert os.getpriority(os.PRIO_PROCESS, worker.pid) == lowered
            halfway.held.set()
            await pulls
        assert processes(os.getpid()) == []

    run(story)


def test_a_process_without_work_ends(double: Registry, home: Path) -> None:
    double.push("app", "1", [tar_of({"one": b"1"})])
    double.push("app", "2", [tar_of({"two": b"2"})])

    async def story() -> None:
        async with opened(home) as store:
            for tag in "12":
                await store.pull(double.reference(f"app:{tag}"))
                for worker in processes(os.getpid()):
                    assert await wait_gone(worker, 20)

    run(story)


def test_a_process_that_dies_is_named_leaves_nothing_and_the_next_pull_has_another(
    double: Registry, home: Path
) -> None:
    pushed = double.push("app", "2", [BIG])
    halfway = Halfway(double, *pushed.layers)

    async def story() -> None:
        async with opened(home) as store:
            pull = asyncio.ensure_future(failure(store.pull(double.reference("app:2"))))
            await asyncio.to_thread(halfway.reached.wait)
            (worker,) = processes(os.getpid())
            os.kill(worker.pid, signal.SIGKILL)
            found = await pull
            assert isinstance(found, Internal)
            assert "the process that makes layers ready ended with status -9" in str(found)
            assert content(home) == []
            halfway.held.set()
            assert (await store.pull(double.reference("app:2"))).id == pushed.config

    run(story)


def test_who_waits_for_a_process_that_dies_is_told_also_where_its_files_cannot_be_removed(
    double: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = double.push("app", "2", [BIG])
    halfway = Halfway(double, *pushed.layers)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "told to")

    async def story() -> None:
        monkeypatch.setattr(layer_process, "_remove_rest", fail)
        async with opened(home) as store:
            pull = asyncio.ensure_future(failure(store.pull(double.reference("app:2"))))
            await asyncio.to_thread(halfway.reached.wait)
            (worker,) = processes(os.getpid())
            os.kill(worker.pid, signal.SIGKILL)
            async with asyncio.timeout(20):
                assert isinstance(await pull, Internal)
            halfway.held.set()
        async with opened(home):
            assert content(home) == []

    run(story)


_DAEMON = """
import asyncio, sys
from pathlib import Path
from tests.component.images.rig import opened
async def story():
    async with opened(Path(sys.argv[1])) as store:
        await store.pull(sys.argv[2])
asyncio.run(story())
"""


def test_the_process_does_not_outlive_a_daemon_that_is_killed(double: Registry, home: Path) -> None:
    pushed = double.push("app", "1", [BIG])
    halfway = Halfway(double, *pushed.layers)
    command = [sys.executable, "-c", _DAEMON, str(home), double.reference("app:1")]
    with subprocess.Popen(command, cwd=TREE) as daemon:
        halfway.reached.wait()
        (worker,) = processes(daemon.pid)
        daemon.kill()

    async def story() -> None:
        assert await wait_gone(worker, 20)

    run(story)
    halfway.held.set()
