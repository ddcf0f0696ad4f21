"""Daemons and monitors that die: whatever the container did meanwhile is found, and told once."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

from shim import process
from shim.runtimes.driver import Exit, Observed, Status
from tests.component.runtimes.conftest import Play
from tests.component.runtimes.rig import Rig, output, written


def test_a_created_container_is_adopted_and_can_be_started(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.create(driver, "sh", "-c", "exit 3")
        async with rig.driver() as driver:
            assert await driver.adopt(target) == Observed(status=Status.CREATED, process=target.process)
            await driver.start(target)
            assert (await rig.ended(target)).code == 3

    play(story)


def test_a_running_container_is_adopted_and_its_end_is_told(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "echo a; sleep 100")
        async with rig.driver() as driver:
            assert await driver.adopt(target) == Observed(status=Status.RUNNING, process=target.process)
            await driver.kill(target, signal.SIGKILL)
            assert (await rig.ended(target)).code == 137

    play(story)


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
        file = rig.base / "run/exits" / target.id
        async with rig.driver() as driver:
            ended = Exit(code=42, finished_at=file.stat().st_ctime_ns)
            assert await driver.adopt(target) == Observed(status=Status.STOPPED, exit=ended)
        assert rig.exits == {}

    play(story)


def test_after_a_reboot_the_exit_code_is_still_there(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "exit 5")
            ended = await rig.ended(target)
        (rig.base / "run/exits" / target.id).unlink()  # the run directory is empty after a reboot
        async with rig.driver() as driver:
            observed = await driver.adopt(target)
            assert observed.status is Status.STOPPED
            assert observed.exit is not None
            assert observed.exit.code == ended.code == 5

    play(story)


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


def test_a_container_that_the_record_does_not_know_yet_is_found_by_its_files(play: Play) -> None:
    """The daemon was killed between the runtime's create and the record of its process."""

    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
        known, target = target, replace(target, process=None, monitor=None)
        async with rig.driver() as driver:
            assert await driver.adopt(target) == Observed(status=Status.RUNNING, process=known.process)
            await driver.delete(target)
            assert rig.processes(target) == []
            assert known.monitor is not None
            assert not process.alive(known.monitor)
            assert (await rig.ended(target)).code == 137

    play(story)


def test_a_container_that_was_never_created_is_absent(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            assert await driver.adopt(rig.target()) == Observed(status=Status.ABSENT)

    play(story)


def test_a_survivor_that_keeps_writing_without_a_daemon_does_not_keep_the_container(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "yes & exec sleep 100", own_pids=False)
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
