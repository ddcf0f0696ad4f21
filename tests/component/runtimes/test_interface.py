"""What every driver must do with every runtime, shim and double: the suite of the driver interface.

Kept small, since each story runs on each of SUBJECTS; the other files here go deeper on a few of them. What a
runtime cannot do is read from its quirks, features and family, and skipped with the words that stand there.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oci.errors import CrispError, Deadline, RuntimeFailed, WrongState
from oci.quirks import Ability
from shim import process, stats
from shim.facts.host import gather
from shim.runtimes.driver import Driver, ExecResult, Exit, Observed, Output, Status, StreamRequest, Target
from shim.threads import in_thread
from tests.component.runtimes.conftest import Play
from tests.component.runtimes.rig import Rig, log_lines, output, written
from tests.component.runtimes.subjects import SUBJECTS
from tests.machine import PATIENCE

LISTENS = "trap 'exit 7' TERM; echo up; while :; do sleep 0.2; done"


@pytest.fixture(params=SUBJECTS)
def runtime(request: pytest.FixtureRequest) -> Iterator[str]:
    return str(request.param)


async def inside(rig: Rig, driver: Driver, target: Target) -> list[str]:
    """The command lines that a container sees, but for the one that looks and zombies that nobody reaps."""
    result = await driver.exec_sync(target, rig.exec("ps", "-o", "args"))
    lines = [line.strip() for line in result.stdout.decode().splitlines()[1:]]
    return sorted(line for line in lines if not line.startswith(("ps -o", "[")))


def test_a_container_is_created_runs_ends_and_is_told_once(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.create(driver, "sh", "-c", f"echo err >&2; {LISTENS}")
            assert await driver.observe(target) == Observed(status=Status.CREATED, process=target.process)
            assert log_lines(target) == []
            before = time.time_ns()
            await driver.start(target)
            assert await driver.observe(target) == Observed(status=Status.RUNNING, process=target.process)
            await written(target, b"up")
            await driver.kill(target, signal.SIGTERM)
            ended = await rig.ended(target)
            assert before < ended.finished_at < time.time_ns()
            assert ended == Exit(code=7, finished_at=ended.finished_at)
            assert await driver.observe(target) == Observed(status=Status.STOPPED, exit=ended)
            assert sorted(log_lines(target)) == [("stderr", "F", "err"), ("stdout", "F", "up")]
            with pytest.raises(WrongState):
                await driver.start(target)
            await driver.kill(target, signal.SIGTERM)
            for _ in range(2):
                await driver.delete(target)
            assert await driver.observe(replace(target, process=None)) == Observed(status=Status.ABSENT)
            assert rig.exits[target.id] == [ended]
            assert sorted(path.name for path in target.directory.iterdir()) == ["config.json"]

    play(story)


def test_what_runs_or_never_ran_is_ended_by_delete(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            await driver.delete(rig.target())
            created = await rig.create(driver, "sleep", "100")
            running = await rig.run(driver, "sh", "-c", "sleep 100 & sleep 100")
            for target in (created, running):
                await driver.delete(target)
                assert not rig.processes(target)
                for ref in (target.process, target.monitor):
                    # a shim may serve the pod's other containers
                    assert ref is None or not process.alive(ref) or rig.by_shim
            assert (await rig.ended(running)).code == 137

    play(story)


def test_a_program_that_is_not_there_is_told_as_such_and_leaves_nothing(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            with pytest.raises(RuntimeFailed) as failure:
                await rig.run(driver, "nonesuch")
            assert (failure.value.program_missing, rig.handler().name in failure.value.message) == (
                True,
                True,
            )
            target = rig.targets[-1]
            await driver.delete(target)
            assert await driver.observe(replace(target, process=None)) == Observed(status=Status.ABSENT)

    play(story)


def test_exec_has_its_output_its_code_and_an_end(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            said = await driver.exec_sync(target, rig.exec("sh", "-c", "echo out; echo err >&2; exit 9"))
            assert said == ExecResult(stdout=b"out\n", stderr=b"err\n", exit_code=9)
            with pytest.raises(RuntimeFailed) as failure:
                await driver.exec_sync(target, rig.exec("nonesuch"))
            assert failure.value.program_missing
            before = await inside(rig, driver, target)
            # in a guest a shim signals the process that it started, and nothing reaches its children
            command = "exec sleep 300" if rig.guests else "sleep 300 & sleep 300"
            with pytest.raises(Deadline):
                await driver.exec_sync(target, rig.exec("sh", "-c", command, timeout=PATIENCE))
            call = asyncio.ensure_future(driver.exec_sync(target, rig.exec("sleep", "301")))
            await asyncio.wait([call], timeout=0.3 * PATIENCE)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled()
            assert await inside(rig, driver, target) == before
            request = StreamRequest(
                process=rig.process(["sh", "-c", "cat; exit 5"]), stdin=True, outputs=frozenset(Output)
            )
            session = await driver.exec_stream(target, request)
            try:
                await session.write(b"hello")
                session.end_input()
                taken = b""
                while data := await session.read(Output.STDOUT):
                    taken += data
                assert await session.read(Output.STDERR) == b""
                assert (taken, await session.wait()) == (b"hello", 5)
            finally:
                await session.close()
            assert rig.execs() == []

    play(story)


def test_an_exec_that_a_signal_ended_says_which(play: Play) -> None:
    async def story(rig: Rig) -> None:
        rig.skip_without(Ability.EXEC_SIGNAL)
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            killed = await driver.exec_sync(target, rig.exec("sh", "-c", "kill -9 $$"))
            assert killed == ExecResult(stdout=b"", stderr=b"", exit_code=137)

    play(story)


def test_a_client_takes_part_and_the_log_is_rotated(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "while read x; do echo $x; done", stdin=True)
            session = await driver.attach(target)
            try:
                await session.write(b"one\n")
                assert await session.read(Output.STDOUT) == b"one\n"
                await written(target, b"one")
                assert target.log_path is not None
                old = target.log_path.rename(f"{target.log_path}.1")
                await driver.reopen_log(target)
                await session.write(b"two\n")
                assert await session.read(Output.STDOUT) == b"two\n"
                await written(target, b"two")
                assert (output(replace(target, log_path=old)), output(target)) == ("one\n", "two\n")
            finally:
                await session.close()

    play(story)


def test_limits_change_and_go_back(play: Play) -> None:
    async def story(rig: Rig) -> None:
        rig.skip_without(Ability.LIMITS)
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100", memory=64 << 20)
            change = {"memory": {"limit": 48 << 20, "swap": 48 << 20}, "cpu": {"shares": 512}}
            put_back = await driver.update(target, change)
            assert rig.memory_limit(target) == 48 << 20
            await put_back()
            assert rig.memory_limit(target) == 64 << 20
            with pytest.raises(CrispError):
                await driver.update(target, {"memory": {"limit": 4096, "swap": 2048}})
            assert rig.memory_limit(target) == 64 << 20

    play(story)


def test_what_a_container_uses_is_counted(play: Play) -> None:
    async def story(rig: Rig) -> None:
        rig.skip_without(Ability.GROUP)
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", f"seq 1 50000 >/dev/null; {LISTENS}", memory=64 << 20)
            await written(target, b"up")
            host = await in_thread(gather)
            cpu, memory = stats.read_cpu(target.cgroup, host), stats.read_memory(target.cgroup, host)
            assert cpu is not None
            assert (cpu.usage_core_nano_seconds or 0) > 1_000_000
            assert memory is not None
            assert 0 < (memory.working_set or 0) < 64 << 20

    play(story)


def test_a_container_without_memory_is_killed_and_that_is_told(play: Play) -> None:
    async def story(rig: Rig) -> None:
        rig.skip_without(Ability.OOM)
        async with rig.driver() as driver:
            target = await rig.run(
                driver, "sh", "-c", "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done", memory=16 << 20
            )
            ended = await rig.ended(target)
            assert (ended.code, ended.oom_killed) == (137, True)

    play(story)


def test_one_that_somebody_paused_is_running_and_can_be_ended(play: Play) -> None:
    """By the runtime's own verb, or the freezer where a shim is between: no request pauses anything."""

    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", LISTENS)
            await written(target, b"up")
            await rig.pause(target)
            assert await driver.observe(target) == Observed(status=Status.RUNNING, process=target.process)
            await driver.delete(target)
            assert (await rig.ended(target)).code == 137

    play(story)


def test_whatever_a_restart_finds_is_adopted(play: Play) -> None:
    """A daemon that dies before a create, after it, while a container runs, ends, or is not yet recorded."""

    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            never = rig.target()
            created = await rig.create(driver, "sh", "-c", "exit 3")
            running = await rig.run(driver, "sh", "-c", LISTENS)
            ends = await rig.run(driver, "sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 42")
            unknown = await rig.run(driver, "sh", "-c", LISTENS)
            await asyncio.gather(written(running, b"up"), written(unknown, b"up"))
            await driver.exec_sync(ends, rig.exec("sh", "-c", ">/tmp/end"))
        await rig.gone(ends)
        rig.exits.clear()  # it may have been told just before
        async with rig.driver() as driver:
            assert await driver.adopt(never) == Observed(status=Status.ABSENT)
            assert await driver.adopt(created) == Observed(status=Status.CREATED, process=created.process)
            await driver.start(created)
            assert (await rig.ended(created)).code == 3
            assert await driver.adopt(running) == Observed(status=Status.RUNNING, process=running.process)
            await driver.kill(running, signal.SIGTERM)
            assert (await rig.ended(running)).code == 7
            stopped = await driver.adopt(ends)
            assert (stopped.status, stopped.exit and stopped.exit.code) == (Status.STOPPED, 42)
            found = await driver.adopt(replace(unknown, process=None, monitor=None))
            assert found == Observed(status=Status.RUNNING, process=unknown.process)
            await driver.delete(replace(unknown, process=None, monitor=None))
            assert (await rig.ended(unknown)).code == 137
            assert ends.id not in rig.exits

    play(story)


def test_a_create_that_is_cut_off_leaves_nothing_and_can_be_repeated(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            await rig.prepare(driver)
            target = rig.target()
            spec = rig.spec(target, ["sleep", "100"])
            base = files_of(rig)
            for wait in (0.0, 0.004, 0.016, 0.064):
                call = asyncio.ensure_future(driver.create(target, spec))
                await asyncio.wait([call], timeout=wait)
                call.cancel()
                await asyncio.wait([call])
                if not call.cancelled():
                    made = call.result()
                    await driver.delete(replace(target, process=made.process, monitor=made.monitor))
                assert rig.processes(target) == []
                deadline = time.monotonic() + 10 * PATIENCE
                while files_of(rig) != base and time.monotonic() < deadline:
                    await asyncio.sleep(0.05)  # a call that was given up is cleared away behind it
                assert files_of(rig) == base
            created = await driver.create(target, spec)
            target = replace(target, process=created.process, monitor=created.monitor)
            await driver.start(target)
            assert (await driver.observe(target)).status is Status.RUNNING
            await driver.delete(target)
            assert files_of(rig) == base

    play(story)


def test_a_bundle_on_a_full_disk_is_named_and_leaves_nothing(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            await rig.prepare(driver)
            target = rig.target()
            base = files_of(rig)
            options = ("size=4k", "mode=700")
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", target.directory], check=True
            )
            try:
                (target.directory / "filler").write_bytes(bytes(4096))
                with pytest.raises(CrispError, match=f"{target.id}.*No space left on device"):
                    await driver.create(target, rig.spec(target, ["sleep", "100"]))
                await driver.delete(target)
                assert files_of(rig) == base
                assert [path.name for path in target.directory.iterdir()] == ["filler"]
            finally:
                subprocess.run(["umount", target.directory], check=True)

    play(story)


def files_of(rig: Rig) -> list[Path]:
    """What runtime and driver keep of containers."""
    rooms = [rig.base / "root", rig.base / "run"]
    found = (path for room in rooms for path in room.rglob("*") if not path.is_dir())
    return sorted(path for path in found if "logger" not in path.parts)  # which all containers share


def test_a_monitor_that_dies_costs_the_code_and_nothing_else(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", LISTENS)
            await written(target, b"up")
            assert target.monitor is not None
            process.signal(target.monitor, signal.SIGKILL)
            assert await process.wait_gone(target.monitor, 10 * PATIENCE)
            await driver.kill(target, signal.SIGKILL)
            assert (await rig.ended(target)).code in (None, 137)
            await driver.delete(target)
            assert rig.processes(target) == []
            if rig.guests and rig.shared:
                return  # the pod is gone with what its containers were in
            again = await rig.run(driver, "sh", "-c", "exit 3")
            assert (await rig.ended(again)).code == 3

    play(story)
