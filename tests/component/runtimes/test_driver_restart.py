"""Daemons and monitors that die: whatever the container did meanwhile is found, and told once."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest

from shim import process
from shim.runtimes.driver import Exit, Observed, Status
from tests.component.runtimes.conftest import RUNTIMES, SHIMS, Play
from tests.component.runtimes.rig import Rig, output, written

under_conmon = pytest.mark.parametrize("runtime", RUNTIMES)
under_shims = pytest.mark.parametrize("runtime", SHIMS)


@under_conmon
def test_an_end_without_a_daemon_is_found_with_its_code_and_time(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(
                driver, "sh", "-c", "trap 'exit 42' TERM; echo up; while :; do sleep 1; done"
            )
            await written(target, b"up")
        assert target.process is not None
        assert target.monitor is not None
        process.signal(target.process, signal.SIGTERM)
        assert await process.wait_gone(target.monitor, 10)
        file = rig.base / "run/ends" / target.id / "exit"
        async with rig.driver() as driver:
            ended = Exit(code=42, finished_at=file.stat().st_ctime_ns)
            assert await driver.adopt(target) == Observed(status=Status.STOPPED, exit=ended)
        assert rig.exits == {}

    play(story)


@under_conmon
def test_after_a_reboot_the_exit_code_is_still_there(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "exit 5")
            ended = await rig.ended(target)
        shutil.rmtree(rig.base / "run/ends")  # the run directory is empty after a reboot
        async with rig.driver() as driver:
            observed = await driver.adopt(target)
            assert observed.status is Status.STOPPED
            assert observed.exit is not None
            assert observed.exit.code == ended.code == 5

    play(story)


@under_conmon
def test_without_its_monitor_a_containers_end_is_seen_and_its_code_is_lost(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            assert target.monitor is not None
            process.signal(target.monitor, signal.SIGKILL)
            assert await process.wait_gone(target.monitor, 10)
            assert (await driver.observe(target)).status is Status.RUNNING
            await driver.kill(target, signal.SIGKILL)
            ended = await rig.ended(target)
            assert ended == Exit(code=None, finished_at=ended.finished_at)
            assert await driver.observe(target) == Observed(status=Status.STOPPED)

    play(story)


@under_conmon
def test_a_container_whose_monitor_died_with_the_daemon_is_adopted(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
        assert target.monitor is not None
        process.signal(target.monitor, signal.SIGKILL)
        async with rig.driver() as driver:
            assert (await driver.adopt(target)).status is Status.RUNNING
            await driver.kill(target, signal.SIGKILL)
            assert (await rig.ended(target)).code is None

    play(story)


@under_conmon
def test_a_container_that_is_gone_with_its_monitor_ended_without_a_code(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
        for ref in (target.monitor, target.process):
            assert ref is not None
            process.signal(ref, signal.SIGKILL)
            assert await process.wait_gone(ref, 10)
        async with rig.driver() as driver:
            observed = await driver.adopt(target)
            assert observed.status is Status.STOPPED
            assert observed.exit is not None
            assert observed.exit.code is None
        assert rig.exits == {}

    play(story)


@under_conmon
def test_a_survivor_that_keeps_writing_without_a_daemon_does_not_keep_the_container(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "yes & exec sleep 100", own_pids=False)
            await written(target, b"y")
        assert target.process is not None
        process.signal(target.process, signal.SIGKILL)
        assert await process.wait_gone(target.process, 10)
        assert rig.processes(target) != []
        async with rig.driver() as driver:
            observed = await driver.adopt(target)
            assert observed.status is Status.STOPPED
            assert observed.exit is not None
            assert observed.exit.code == 137
            assert rig.processes(target) == []

    play(story)


@under_conmon
def test_a_monitor_that_hangs_is_ended_and_the_code_is_lost(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver(exit_drain=0.5) as driver:
            target = await rig.run(driver, "sh", "-c", "echo last; exec sleep 100")
            await written(target, b"last")
            assert target.monitor is not None
            os.kill(target.monitor.pid, signal.SIGSTOP)
            await driver.kill(target, signal.SIGKILL)
            assert (await rig.ended(target)).code is None
            assert not process.alive(target.monitor)
            assert output(target) == "last\n"

    play(story)


@under_shims
def test_an_end_without_a_daemon_is_found_at_the_shim(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(
                driver, "sh", "-c", "trap 'echo last; exit 42' TERM; echo up; while :; do sleep 1; done"
            )
            await written(target, b"up")
        assert target.process is not None
        before = time.time_ns()
        process.signal(target.process, signal.SIGTERM)
        assert await process.wait_gone(target.process, 10)
        async with rig.driver() as driver:
            observed = await rig.adopt_ended(driver, target)
            assert observed.exit is not None
            assert before < observed.exit.finished_at < time.time_ns()
            ended = Exit(code=42, finished_at=observed.exit.finished_at)
            assert observed == Observed(status=Status.STOPPED, exit=ended)
            assert output(target) == "up\nlast\n"
        assert rig.exits == {}

    play(story)


@under_shims
def test_a_dead_shim_takes_its_container_with_it_and_the_end_is_told(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "echo up; sleep 100")
            await written(target, b"up")
            assert target.monitor is not None
            process.signal(target.monitor, signal.SIGKILL)
            assert (await rig.ended(target)).code == 137
            assert rig.processes(target) == []
            assert (await driver.observe(target)).status is Status.STOPPED
            await driver.delete(target)
            again = await rig.run(driver, "sh", "-c", "exit 3")
            assert (await rig.ended(again)).code == 3

    play(story)


@under_shims
def test_a_shim_that_died_with_the_daemon_is_found_dead_and_its_container_ended(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
        assert target.monitor is not None
        process.signal(target.monitor, signal.SIGKILL)
        assert await process.wait_gone(target.monitor, 10)
        async with rig.driver() as driver:
            observed = await driver.adopt(target)
            assert observed.status is Status.STOPPED
            assert observed.exit is not None
            assert observed.exit.code == 137
            assert rig.processes(target) == []
        assert rig.exits == {}

    play(story)


@under_shims
def test_containers_of_a_pod_share_a_shim_which_ends_with_the_last(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            first = await rig.run(driver, "sleep", "100")
            second = await rig.run(driver, "sleep", "100")
            assert first.monitor == second.monitor
            assert first.monitor is not None
            await driver.delete(first)
            assert process.alive(first.monitor)
            assert (await driver.observe(second)).status is Status.RUNNING
            await driver.delete(second)
            assert not process.alive(first.monitor)

    play(story)


@under_shims
def test_output_goes_on_while_there_is_no_daemon_and_through_the_log_processs_death(play: Play) -> None:
    async def story(rig: Rig) -> None:
        script = "trap 'seq 100001 200000; exit 0' TERM; seq 1 100000; echo up >&2; while :; do sleep 1; done"
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", script)
            await written(target, b"up")
        assert target.process is not None
        process.signal(target.process, signal.SIGTERM)
        # nobody but the log process empties the fifo meanwhile, which holds a tenth of this
        assert await process.wait_gone(target.process, 20)
        async with rig.driver() as driver:
            assert (await rig.adopt_ended(driver, target)).status is Status.STOPPED
            assert output(target) == "".join(f"{n}\n" for n in range(1, 200001))

    play(story)


@under_shims
def test_killing_the_log_process_again_and_again_loses_and_doubles_no_byte(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "seq 1 300000")
            keeper = rig.keeper
            assert keeper is not None
            kills = 0
            while target.id not in rig.exits and kills < 12:
                pid = await keeper.pid()
                os.kill(pid, signal.SIGKILL)
                kills += 1
            assert (await rig.ended(target, within=60)).code == 0
            assert kills > 2
            assert output(target) == "".join(f"{n}\n" for n in range(1, 300001))

    play(story)
