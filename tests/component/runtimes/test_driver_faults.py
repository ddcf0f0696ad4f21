"""A runtime or monitor that fails, hangs, prints nonsense or lies at a verb: a clear error, nothing left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oci.errors import Absent, CrispError, Deadline, RuntimeFailed, WrongState
from shim.kernel import mount
from shim.runtimes.driver import Observed, Status
from tests import figures
from tests.component.runtimes.conftest import RUNTIMES, Play
from tests.component.runtimes.rig import Rig
from tests.doubles.oci_runtime import Plan, calls, install
from tests.machine import PATIENCE

_SHORT = 0.7 * PATIENCE


def _double(rig: Rig, plans: dict[str, Plan]) -> None:
    rig.binary = install(rig.base, rig.handler().binary, plans)


def _limit(act: str) -> dict[str, float]:
    """A short time for what hangs, and enough for all else."""
    return {"timeout": _SHORT} if act == "hang" else {}


@pytest.fixture
def runtime() -> str:
    return "crun"


@pytest.fixture(autouse=True)
def what_a_killed_crun_leaves_is_put_away() -> Iterator[None]:
    """crun mounts its own program at /tmp/crun.XXXXXX for a moment (libcrun/cloned_binary.c, try_bindfd).

    Killed within it nobody but crun knows of the mount; it is counted, and is no driver's leak.
    """
    yield
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        root, point = line.split(" ")[3:5]
        if point.startswith("/tmp/crun.") and root.endswith("/crun"):
            figures.count("left out", "mounts that a crun killed in its first moment has left", 1)
            mount.unmount(point)
            Path(point).unlink()


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (
            Plan(act="fail", words="no space on the moon"),
            r"double-runtime create .*no space on the moon",
        ),
        (Plan(act="fail", silent=True), "conmon of container .* ended without an answer"),
        (Plan(act="fail", after=True, words="too late"), "too late"),
        (Plan(act="die"), "conmon of container"),
        (Plan(act="garbage"), "create of container"),
        (Plan(act="nothing"), "create of container"),
    ],
    ids=["fails", "fails silently", "fails after it worked", "dies", "garbage", "does nothing"],
)
def test_a_create_that_fails_says_why_and_leaves_nothing(play: Play, plan: Plan, words: str) -> None:
    async def story(rig: Rig) -> None:
        _double(rig, {"create": plan})
        async with rig.driver() as driver:
            with pytest.raises(RuntimeFailed, match=words) as failure:
                await rig.create(driver, "sleep", "100")
            assert failure.value.verb == "create"
            assert not failure.value.program_missing
            assert "handler crun" in failure.value.message
            (target,) = rig.targets
            assert rig.processes(target) == []
            assert calls(rig.base) == ["create", "delete"]

    play(story)


def test_a_create_that_hangs_is_ended_at_its_deadline(play: Play) -> None:
    async def story(rig: Rig) -> None:
        _double(rig, {"create": Plan(act="hang")})
        async with rig.driver(timeout=_SHORT) as driver:
            began = time.monotonic()
            with pytest.raises(Deadline, match=rf"create did not end within {_SHORT:g} s"):
                await rig.create(driver, "sleep", "100")
            assert time.monotonic() - began < 3 * PATIENCE

    play(story)


@pytest.mark.parametrize(
    ("plan", "kind", "words"),
    [
        (
            Plan(act="fail", words="the stars are wrong"),
            RuntimeFailed,
            "start of container .*the stars are wrong",
        ),
        (Plan(act="fail", words="container does not exist"), Absent, "start of container"),
        (
            Plan(act="fail", words="cannot start a container that has stopped"),
            WrongState,
            "start of container",
        ),
        (Plan(act="fail", silent=True, status=42), RuntimeFailed, r"\(status 42\): it said nothing"),
        (Plan(act="die"), RuntimeFailed, "killed by signal 9"),
        (Plan(act="garbage"), RuntimeFailed, "start of container"),
        (Plan(act="hang"), Deadline, rf"start of container .*did not end within {_SHORT:g} s"),
    ],
    ids=["fails", "absent", "stopped", "silent", "dies", "garbage", "hangs"],
)
def test_a_start_that_fails_is_told_by_its_kind(
    play: Play, plan: Plan, kind: type[CrispError], words: str
) -> None:
    async def story(rig: Rig) -> None:
        _double(rig, {"start": plan})
        async with rig.driver(**_limit(plan.act)) as driver:
            target = await rig.create(driver, "sleep", "100")
            with pytest.raises(kind, match=words):
                await driver.start(target)
            await driver.delete(target)
            assert rig.processes(target) == []
            assert (await rig.ended(target)).code == 137

    play(story)


@pytest.mark.parametrize(
    ("plan", "kind", "words"),
    [
        (Plan(act="fail", words="not today"), RuntimeFailed, "delete of container .*not today"),
        (Plan(act="nothing"), RuntimeFailed, "delete reported success, but its state is still in"),
        (Plan(act="hang"), Deadline, "delete of container"),
    ],
    ids=["fails", "does nothing", "hangs"],
)
def test_a_delete_that_fails_still_ends_the_container_and_can_be_repeated(
    play: Play, plan: Plan, kind: type[CrispError], words: str
) -> None:
    async def story(rig: Rig) -> None:
        _double(rig, {"delete": plan})
        async with rig.driver(**_limit(plan.act)) as driver:
            target = await rig.run(driver, "sleep", "100")
            with pytest.raises(kind, match=words):
                await driver.delete(target)
            assert rig.processes(target) == []
            assert (await rig.ended(target)).code == 137
        rig.binary = None
        async with rig.driver() as driver:
            await driver.delete(target)
            assert list((rig.base / "root").iterdir()) == []

    play(story)


@pytest.mark.parametrize("act", ["fail", "hang"])
def test_what_a_runtime_does_not_kill_inside_is_ended_outside(play: Play, act: str) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
        _double(rig, {"kill": Plan(act=act, words="not today")})
        async with rig.driver(timeout=2.0) as driver:
            assert (await driver.adopt(target)).status is Status.RUNNING
            with pytest.raises((RuntimeFailed, Deadline), match=r"not today|kill of container"):
                await driver.kill(target, 15)
            await driver.kill(target, 9, everything=True)
            await rig.ended(target)
            assert (await driver.observe(target)).status is Status.STOPPED
            for each in reversed(rig.targets):
                await driver.delete(each)
            assert rig.processes(target) == []

    play(story, real="kata")


@pytest.mark.parametrize("act", ["fail", "garbage", "nothing", "hang", "die"])
def test_a_state_that_cannot_be_asked_is_unknown_and_the_end_is_still_told(play: Play, act: str) -> None:
    async def story(rig: Rig) -> None:
        _double(rig, {"state": Plan(act=act)})
        async with rig.driver(**_limit(act)) as driver:
            target = await rig.run(driver, "sleep", "100")
        async with rig.driver(**_limit(act)) as driver:
            assert await driver.adopt(target) == Observed(status=Status.UNKNOWN, process=target.process)
            await driver.kill(target, 9)
            assert (await rig.ended(target)).code == 137

    play(story)


@pytest.mark.parametrize(
    ("plan", "kind", "words"),
    [
        (Plan(act="fail", words="no more keys"), RuntimeFailed, "exec of container .*no more keys"),
        (Plan(act="fail", words="container does not exist"), Absent, "exec of container"),
        (Plan(act="nothing"), RuntimeFailed, "the process was not started"),
        (Plan(act="garbage"), RuntimeFailed, "exec of container"),
        (Plan(act="die"), RuntimeFailed, "killed by signal 9"),
        (Plan(act="hang"), Deadline, rf"no end within {_SHORT:g} s"),
    ],
    ids=["fails", "absent", "does nothing", "garbage", "dies", "hangs"],
)
def test_an_exec_that_fails_is_told_by_its_kind(
    play: Play, plan: Plan, kind: type[CrispError], words: str
) -> None:
    async def story(rig: Rig) -> None:
        _double(rig, {"exec": plan})
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            before = rig.processes(target)
            with pytest.raises(kind, match=words):
                await driver.exec_sync(target, rig.exec("true", **_limit(plan.act)))
            assert rig.processes(target) == before
            assert rig.execs() == []

    play(story)


@pytest.mark.parametrize("missing", ["runtime", "monitor"])
def test_a_missing_program_of_the_node_is_named(play: Play, missing: str) -> None:
    async def story(rig: Rig) -> None:
        nowhere = Path("/no/such/program")
        if missing == "runtime":
            rig.binary = nowhere
        else:
            rig.monitor = nowhere
        async with rig.driver() as driver:
            with pytest.raises(RuntimeFailed, match="/no/such/program") as failure:
                await rig.create(driver, "true")
            assert not failure.value.program_missing
            with pytest.raises(RuntimeFailed, match=r"/no/such/program|does not exist"):
                if missing == "monitor":
                    await rig.create(driver, "true")
                await driver.start(rig.targets[0])

    play(story)


def test_an_unusable_log_path_is_named(play: Play) -> None:
    async def story(rig: Rig) -> None:
        (rig.base / "file").write_text("")
        async with rig.driver() as driver:
            with pytest.raises(CrispError, match=r"log file .*/file/0\.log: .*ENOTDIR|EEXIST"):
                await rig.create(driver, "true", log_path=rig.base / "file" / "0.log")

    play(story)


@pytest.mark.parametrize("real", RUNTIMES)
def test_a_create_cancelled_at_any_moment_leaves_nothing_and_can_be_repeated(play: Play, real: str) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = rig.target()
            spec = rig.spec(target, ["sleep", "100"])
            cancelled = 0
            for tenths in range(0, 400, 8):
                call = asyncio.ensure_future(driver.create(target, spec))
                await asyncio.wait([call], timeout=tenths / 10_000)
                call.cancel()
                try:
                    await call
                except asyncio.CancelledError:
                    cancelled += 1
                    assert rig.processes(target) == []
                    assert rig.cgroups.processes(rig.monitors) == []
                    assert [path for path in (rig.base / "run").rglob("*") if not path.is_dir()] == []
                    assert list((rig.base / "root").glob("*")) == []
                else:
                    await driver.delete(target)
                    rig.exits.clear()
            assert cancelled > 3
            created = await driver.create(target, spec)
            await driver.delete(replace(target, process=created.process, monitor=created.monitor))

    play(story, real=real)


def test_what_a_runc_killed_at_a_bad_moment_left_does_not_keep_the_container(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            torn = rig.base / "root" / target.id / "runc.a1B2c3"
            torn.write_text("")
            mount.bind("/bin/true", torn)
            await driver.delete(target)
            assert list((rig.base / "root").iterdir()) == []

    play(story, real="runc")
