"""Processes beside a container's own: output, codes, deadlines that hold, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import time

import pytest

from oci import commandline
from oci.commandline import Runtime
from oci.errors import Deadline, RuntimeFailed
from shim import process
from shim.kernel import pidfd
from shim.kernel.arrivals import Arrivals
from shim.records import ProcessRef
from shim.runtimes import processtree
from shim.runtimes.driver import ExecResult
from shim.runtimes.execgroups import ExecGroups
from shim.runtimes.shimv2.driver import ShimDriver
from shim.runtimes.shimv2.execs import open_source
from shim.runtimes.shimv2.task import Stdio
from tests.component.runtimes.conftest import RUNTIMES, Play
from tests.component.runtimes.rig import Rig
from tests.machine import PATIENCE

SHORT = 0.7 * PATIENCE  # seconds; enough for a command to begin


def test_standard_input_is_at_its_end(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            assert await driver.exec_sync(target, rig.exec("cat")) == ExecResult(
                stdout=b"", stderr=b"", exit_code=0
            )

    play(story)


@pytest.mark.parametrize("program", ["nonesuch", "/no/such/program", "/etc/plain"])
def test_a_missing_program_is_told_as_such(play: Play, program: str) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            with pytest.raises(RuntimeFailed) as failure:
                await driver.exec_sync(target, rig.exec(program))
            assert (failure.value.verb, failure.value.program_missing) == ("exec", True)

    play(story)


def test_each_stream_is_cut_at_the_limit_and_the_command_runs_on(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            request = rig.exec(
                "sh", "-c", "yes | head -c 3000000; yes e | head -c 9 >&2; exit 4", output_limit=1 << 20
            )
            result = await driver.exec_sync(target, request)
            assert result == ExecResult(stdout=b"y\n" * (1 << 19), stderr=b"e\n" * 4 + b"e", exit_code=4)

    play(story)


def test_many_run_at_the_same_time(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            results = await asyncio.gather(
                *(
                    driver.exec_sync(
                        target, rig.exec("sh", "-c", f"echo {n}; exit {n}", timeout=60.0 * PATIENCE)
                    )
                    for n in range(12)
                )
            )
            assert results == [ExecResult(stdout=b"%d\n" % n, stderr=b"", exit_code=n) for n in range(12)]

    play(story)


@pytest.mark.parametrize(
    "command",
    [
        "sleep 300",
        "sleep 300 & sleep 300",
        "trap '' TERM HUP; sleep 300; sleep 300",
        "setsid sleep 300 & sleep 300",
        "setsid sh -c 'sleep 300 & sleep 300' & while :; do :; done",
        "while :; do echo flood; done",
    ],
)
def test_after_its_deadline_nothing_of_an_exec_is_left(play: Play, command: str) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            before = rig.processes(target)
            began = time.monotonic()
            with pytest.raises(Deadline, match=re.escape(f"no end within {SHORT:g} s")):
                await driver.exec_sync(target, rig.exec("sh", "-c", command, timeout=SHORT))
            assert time.monotonic() - began < SHORT + PATIENCE
            assert rig.processes(target) == before

    play(story)


DAEMON = "setsid sh -c '(exec setsid sleep 300) >/dev/null 2>&1 </dev/null & exit'"
"""Leaves a process with a session of its own, no parent of its own and no output."""


def test_after_its_deadline_no_daemon_of_an_exec_is_left_where_it_has_a_group(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            before = rig.processes(target)
            with pytest.raises(Deadline, match=re.escape(f"no end within {SHORT:g} s")):
                await driver.exec_sync(target, rig.exec("sh", "-c", f"{DAEMON}; sleep 300", timeout=SHORT))
            assert len(rig.processes(target)) == len(before) + (0 if rig.groups_execs else 1)

    play(story)


def test_what_dies_at_once_at_its_deadline_is_reaped_by_the_runtime(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the container sees a zombie until the machine's first process takes it."""
    kill = ExecGroups.kill
    dead: list[int] = []

    def until_dead(self: ExecGroups, cgroup: str, number: int) -> list[ProcessRef]:
        killed = kill(self, cgroup, number)
        for ref in killed:
            dead.append(ref.pid)
            descriptor = pidfd.open_process(ref)
            if descriptor is not None:
                select.select([descriptor], [], [])
                os.close(descriptor)
        return killed

    monkeypatch.setattr(ExecGroups, "kill", until_dead)

    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            with pytest.raises(Deadline, match="1 process killed"):
                await driver.exec_sync(target, rig.exec("sleep", "300", timeout=SHORT))
            assert len(dead) == (1 if rig.groups_execs else 0)
            assert [pid for pid in dead if processtree.read_entry(pid) is not None] == []

    play(story)


def test_a_daemon_of_an_earlier_exec_is_left_alone_by_later_ones(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            before = rig.processes(target)
            result = await driver.exec_sync(target, rig.exec("sh", "-c", f"{DAEMON}; echo begun"))
            assert result == ExecResult(stdout=b"begun\n", stderr=b"", exit_code=0)
            daemons = set(rig.processes(target)) - set(before)
            assert len(daemons) == 1
            for _ in range(2):
                with pytest.raises(Deadline):
                    await driver.exec_sync(target, rig.exec("sleep", "300", timeout=SHORT))
            assert set(rig.processes(target)) - set(before) == daemons

    play(story)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_daemon_that_an_exec_left_before_a_restart_is_ended_where_it_has_a_group(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            before = rig.processes(target)
            await driver.exec_sync(target, rig.exec("sh", "-c", f"{DAEMON}; echo begun"))
        # as a daemon that was killed before it could forget the exec leaves its file
        (rig.base / "run/execs" / f"{target.id}.earlier-0.json").write_text("{}")
        async with rig.driver() as driver:
            await driver.adopt(target)
            assert len(rig.processes(target)) == len(before) + (0 if rig.groups_execs else 1)

    play(story)


def test_a_background_child_that_holds_the_output_does_not_hang_the_call(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver(exec_drain=0.5) as driver:
            target = await rig.run(driver, "sleep", "100")
            before = rig.processes(target)
            for limit in (8.0 * PATIENCE, None):
                began = time.monotonic()
                result = await driver.exec_sync(
                    target, rig.exec("sh", "-c", "echo said; sleep 300 & exit 6", timeout=limit)
                )
                assert result == ExecResult(stdout=b"said\n", stderr=b"", exit_code=6)
                assert 0.5 <= time.monotonic() - began < 2 * PATIENCE
                assert rig.processes(target) == before

    play(story)


def test_a_background_child_that_has_closed_its_output_lives_on(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            before = rig.processes(target)
            began = time.monotonic()
            result = await driver.exec_sync(
                target, rig.exec("sh", "-c", "sleep 300 >/dev/null 2>&1 </dev/null & echo begun")
            )
            assert result == ExecResult(stdout=b"begun\n", stderr=b"", exit_code=0)
            assert time.monotonic() - began < PATIENCE
            assert len(rig.processes(target)) == len(before) + 1

    play(story)


def test_an_exec_ends_with_its_caller(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            before = rig.processes(target)
            for wait in (0.0, 0.002, 0.01, 0.3 * PATIENCE):
                call = asyncio.ensure_future(
                    driver.exec_sync(target, rig.exec("sh", "-c", "sleep 300 & sleep 300"))
                )
                await asyncio.wait([call], timeout=wait)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                deadline = time.monotonic() + 5 * PATIENCE
                while rig.processes(target) != before and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)  # a shim reaps what was killed a moment later
                assert rig.processes(target) == before, wait
            assert rig.execs() == []

    play(story)


def test_an_exec_ends_with_its_container(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            call = asyncio.ensure_future(driver.exec_sync(target, rig.exec("sh", "-c", "sleep 300")))
            await asyncio.wait([call], timeout=0.3 * PATIENCE)
            await driver.kill(target, 9)
            assert (await rig.ended(target)).code == 137
            assert (await call).exit_code == 137

    play(story)


@pytest.mark.parametrize("real", RUNTIMES)
@pytest.mark.parametrize("named", [True, False], ids=["started", "starting"])
def test_what_an_exec_left_before_a_restart_is_ended_when_the_container_is_adopted(
    play: Play, named: bool, real: str
) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
        before = rig.processes(target)
        execs = rig.base / "run/execs"
        request, pid_file = execs / f"{target.id}.earlier.json", execs / f"{target.id}.earlier.pid"
        request.write_text(json.dumps(rig.process(["sh", "-c", "sleep 300 & sleep 300"])))
        handler = rig.handler()
        written = asyncio.Event()
        arrivals = Arrivals(lambda name: written.set() if name == pid_file.name else None, written.set)
        arrivals.add(execs)
        orphan = await process.spawn(
            commandline.execute(
                Runtime(handler=handler.name, program=handler.binary, root=handler.root),
                execs / f"{target.id}.earlier.log",
                target.id,
                process=request,
                pid_file=pid_file,
            )
        )
        try:
            async with asyncio.timeout(10 * PATIENCE):
                await written.wait()
            if not named:
                pid_file.unlink()
            async with rig.driver() as driver:
                await driver.adopt(target)
                assert rig.processes(target) == before
                assert list(execs.iterdir()) == []
            assert await orphan.wait() == (137 if named else -9)
        finally:
            arrivals.close()
            await orphan.end(grace=0)

    play(story, real=real)


def test_what_an_exec_left_before_a_restart_is_ended_by_the_shim_too(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            before = rig.processes(target)
            assert isinstance(driver, ShimDriver)
            shim = await driver._shims.find(target)
            assert shim is not None
            running = driver._execs.begin(target, shim, ["out", "err"])
            stdio = Stdio(stdout=str(running.path("out")), stderr=str(running.path("err")))
            readers = [open_source(running.path(name)) for name in ("out", "err")]
            waiting = await driver._execs.start(
                running, rig.process(["sh", "-c", "sleep 300 & sleep 300"]), stdio
            )
            waiting.cancel()  # the daemon is killed: nothing more is said to the shim
            for reader in readers:
                reader.close()
        assert len(rig.processes(target)) > len(before)
        async with rig.driver() as driver:
            await driver.adopt(target)
            assert rig.processes(target) == before
            assert rig.execs() == []

    play(story, real="shim-runc-v2")
