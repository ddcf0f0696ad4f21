"""Rotation: later output goes to a new file, and no line is lost, doubled or torn."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from oci.errors import WrongState
from tests.component.runtimes.conftest import RUNTIMES, Play
from tests.component.runtimes.rig import Rig, log_lines, output, written


def _rotate(log: Path, number: int) -> Path:
    return log.rename(f"{log}.2026010{number}-000000")


def test_no_line_is_lost_when_a_busy_log_is_rotated_again_and_again(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "seq 1 200000")
            assert target.log_path is not None
            files = []
            for number in range(1, 9):
                files.append(_rotate(target.log_path, number))
                try:
                    await driver.reopen_log(target)
                except WrongState:  # it has printed everything: nothing writes the log any more
                    break
                assert stat.S_IMODE(target.log_path.stat().st_mode) == 0o640
            ended = await rig.ended(target)
            assert ended.code == 0
            assert len(files) > 1
            kept = [*files, *([target.log_path] if target.log_path.exists() else [])]
            text = "".join(output(replace(target, log_path=path)) for path in kept)
            assert text == "".join(f"{n}\n" for n in range(1, 200001))

    play(story)


def test_after_a_reopen_the_old_file_gets_nothing_and_the_new_one_everything(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(
                driver, "sh", "-c", "trap 'echo after; exit 0' TERM; echo before; while :; do sleep 1; done"
            )
            await written(target, b"before")
            assert target.log_path is not None
            old = _rotate(target.log_path, 1)
            await driver.reopen_log(target)
            await driver.kill(target, 15)
            await rig.ended(target)
            assert log_lines(replace(target, log_path=old)) == [("stdout", "F", "before")]
            assert log_lines(target) == [("stdout", "F", "after")]
            assert sorted(path.name for path in old.parent.iterdir()) == ["0.log", old.name]

    play(story)


def test_a_reopen_without_a_rename_loses_nothing(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(
                driver, "sh", "-c", "trap 'echo after; exit 0' TERM; echo before; while :; do sleep 1; done"
            )
            await written(target, b"before")
            await driver.reopen_log(target)
            await asyncio.gather(driver.reopen_log(target), driver.reopen_log(target))
            await driver.kill(target, 15)
            await rig.ended(target)
            assert [text for *_, text in log_lines(target)] == ["before", "after"]

    play(story)


@pytest.mark.parametrize("runtime", RUNTIMES)  # conmon would cut it; others only append
def test_a_foreign_file_at_the_path_is_kept_aside(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "echo before; sleep 100")
            await written(target, b"before")
            assert target.log_path is not None
            _rotate(target.log_path, 1)
            target.log_path.write_text("foreign\n")
            await driver.reopen_log(target)
            texts = sorted(path.read_text() for path in target.log_path.parent.iterdir())
            assert len(texts) == 3
            assert "foreign\n" in texts
            assert target.log_path.read_text() == ""

    play(story)


def test_the_log_of_an_ended_container_is_not_reopened(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "true")
            await rig.ended(target)
            assert target.log_path is not None
            _rotate(target.log_path, 1)
            await driver.delete(target)
            with pytest.raises(WrongState):
                await driver.reopen_log(target)
            assert not target.log_path.exists()

    play(story)
