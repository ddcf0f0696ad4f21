"""A container's life under a real runtime and conmon: states, exit codes, signals, logs, removal."""

from __future__ import annotations

import asyncio
import signal
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from oci.errors import RuntimeFailed
from shim.runtimes.driver import Observed, Status
from tests.component.runtimes.conftest import Play
from tests.component.runtimes.rig import Rig, log_lines, output, written


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255)])
def test_the_exit_code_is_the_first_processs(play: Play, command: str, code: int) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", command)
            assert (await rig.ended(target)).code == code

    play(story)


def test_the_monitor_lives_in_its_own_cgroup_and_the_container_in_its(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            assert target.monitor is not None
            assert target.process is not None
            assert target.monitor.pid in rig.cgroups.processes(rig.monitors)
            assert rig.processes(target) == [target.process.pid]
            for line in Path(f"/proc/{target.monitor.pid}/cgroup").read_text().splitlines():
                assert line.endswith(f":{rig.monitors}")

    play(story)


def test_the_log_file_has_mode_0640_in_directories_of_0755(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "true")
            await rig.ended(target)
            assert target.log_path is not None
            assert stat.S_IMODE(target.log_path.stat().st_mode) == 0o640
            assert stat.S_IMODE(target.log_path.parent.stat().st_mode) == 0o755

    play(story)


def test_a_container_without_a_log_runs(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "seq 1 100000; exit 4", log_path=None)
            assert (await rig.ended(target)).code == 4
            await driver.reopen_log(target)

    play(story)


def test_a_terminal_merges_the_streams(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "echo out; echo err >&2", tty=True)
            assert (await rig.ended(target)).code == 0
            assert output(target).replace("\r", "") == "out\nerr\n"

    play(story)


def test_long_lines_are_cut_into_parts_that_join_to_the_whole(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(
                driver, "sh", "-c", "head -c 100000 /proc/self/exe >/dev/null; yes abcdefg | head -c 50000 | "
                "tr -d '\\n'; echo; echo short; printf unfinished"
            )  # fmt: skip
            await rig.ended(target)
            line = ("abcdefg\n" * 6250).replace("\n", "")
            assert output(target) == f"{line}\nshort\nunfinished"
            assert {tag for _, tag, _ in log_lines(target)} == {"P", "F"}

    play(story)


@pytest.mark.parametrize("program", ["nonesuch", "/no/such/program", "/etc/plain", "/bin"])
def test_a_program_that_cannot_run_fails_the_create_as_such_and_leaves_nothing(
    play: Play, program: str
) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            with pytest.raises(RuntimeFailed) as failure:
                await rig.create(driver, program)
            assert (failure.value.verb, failure.value.program_missing) == ("create", True)
            (target,) = rig.targets
            assert await driver.observe(target) == Observed(status=Status.ABSENT)
            assert not rig.processes(target)
        assert rig.exits == {}

    play(story)


def test_a_fault_of_the_configuration_is_no_fault_of_the_program(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = rig.target()
            spec = rig.spec(target, ["true"])
            spec["mounts"].append(
                {"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}
            )
            with pytest.raises(RuntimeFailed, match=r"[Nn]o such file or directory") as failure:
                await driver.create(target, spec)
            assert not failure.value.program_missing

    play(story)


@pytest.mark.parametrize("child", ["sleep 300", "yes survivor"])
def test_with_shared_pids_children_do_not_outlive_the_first_process(play: Play, child: str) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", f"{child} & {child} & exit 5", own_pids=False)
            ended = await rig.ended(target)
            assert ended.code == 5
            assert rig.processes(target) == []

    play(story)


def test_everything_can_be_killed_with_shared_pids(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "sleep 300 & echo up; wait", own_pids=False)
            await written(target, b"up")
            assert len(rig.processes(target)) == 2
            await driver.kill(target, signal.SIGKILL, everything=True)
            assert rig.processes(target) == []
            assert (await rig.ended(target)).code == 137

    play(story)


def test_many_containers_live_at_the_same_time(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            targets = await asyncio.gather(*(rig_run(rig, driver, number) for number in range(8)))
            codes = [(await rig.ended(target)).code for target in targets]
            assert codes == list(range(8))
            await asyncio.gather(*(driver.delete(target) for target in targets))

    async def rig_run(rig: Rig, driver, number: int):  # type: ignore[no-untyped-def]
        target = rig.target()
        created = await driver.create(target, rig.spec(target, ["sh", "-c", f"exit {number}"]))
        target = replace(target, process=created.process, monitor=created.monitor)
        await driver.start(target)
        return target

    play(story)
