"""Shims that die, hang, lie or break ttrpc at any call: a clear error in time, nothing left, life goes on.

Every way of failing is tried at every call with `--sweep-stride 1`, some of them otherwise.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from oci.errors import CrispError, Deadline, RuntimeFailed
from oci.workload import PodId
from shim import process
from shim.runtimes.driver import Driver, Observed, Status
from shim.runtimes.shimv2 import shims
from tests.component.runtimes.conftest import Play
from tests.component.runtimes.rig import Rig
from tests.component.runtimes.subjects import STATE
from tests.doubles.shims.install import Plan, Setup, calls, install
from tests.machine import PATIENCE

LIMIT = 3.0 * PATIENCE  # seconds for a call
WORDS = "the stars are wrong"
METHODS = ("Connect", "Create", "Wait", "Start", "State", "Exec", "Kill", "Delete", "Shutdown")
NAMES = ("runwasi", "kata-go")
NEVER = {("runwasi", "Kill")}  # the node signals its processes itself
HARMLESS = ("late", "stray")
ACTS = ("die", "fail", "hang", "drop", "torn", "garbage", "long", "alien", *HARMLESS)
TOLD = {
    "die": "closed the connection|connection is gone|nobody listens|has no shim|connection was closed",
    "drop": "closed the connection|connection is gone|has no shim|connection was closed",
    "torn": "within a message|has no shim",
    "fail": WORDS,
    "hang": "within|did not",
    "garbage": "cannot be read",
    "long": "over 4194304",
    "alien": "type 9|has no shim",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        every = [(name, method, act) for act in ACTS for method in METHODS for name in NAMES]
        every = [one for one in every if one[:2] not in NEVER]
        chosen = every[:: 2 * int(metafunc.config.getoption("--sweep-stride")) - 1]
        metafunc.parametrize("case", chosen, ids=["-".join(one) for one in chosen])


@pytest.fixture
def runtime() -> str:
    return "runwasi"


@contextlib.contextmanager
def failing(rig: Rig, plans: Mapping[str, Plan], *, ways: str = "") -> Iterator[Path]:
    """The double does as planned within, and what is started after it as it should."""
    setup = Setup(ways=ways or rig.found.name, state=rig.base / "root" / STATE, plans=plans)
    program = install(rig.base / "program", setup)
    rig.found = replace(rig.found, binary=program)
    try:
        yield program.parent
    finally:
        install(rig.base / "program", replace(setup, plans={}))


@contextlib.asynccontextmanager
async def impatient(rig: Rig) -> AsyncIterator[Driver]:
    async with rig.driver(timeout=LIMIT, kill_time=LIMIT, exit_drain=LIMIT) as driver:
        yield driver


async def live(rig: Rig, driver: Driver) -> dict[str, CrispError]:
    """A container's whole life, whatever fails of it; the errors by verb."""
    errors: dict[str, CrispError] = {}

    async def attempt(verb: str, work: object) -> None:
        try:
            await work  # type: ignore[misc]
        except CrispError as error:
            errors[verb] = error

    await attempt("create", rig.create(driver, "sleep", "100"))
    target = rig.targets[-1]
    if "create" not in errors:
        await attempt("start", driver.start(target))
        await attempt("observe", driver.observe(target))
        await attempt("exec", driver.exec_sync(target, rig.exec("true", timeout=LIMIT)))
        await attempt("kill", driver.kill(target, 9))
    for each in reversed(rig.targets):  # the pod's first container at last
        await attempt("delete", driver.delete(each))
    return errors


def test_a_shim_that_fails_at_a_call_is_told_and_leaves_nothing(
    play: Play, case: tuple[str, str, str]
) -> None:
    name, method, act = case

    async def story(rig: Rig) -> None:
        began = time.monotonic()
        plan = Plan(act=act, words=WORDS, seconds=LIMIT / 3)
        with failing(rig, {method: plan}) as program:
            async with impatient(rig) as driver:
                errors = await live(rig, driver)
            assert method in calls(program)
        for verb, error in errors.items():
            print(f"TOLD {method} {act} {verb}: {error.message}")
        print("TOOK", method, act, time.monotonic() - began)
        if act in HARMLESS:
            assert errors == {}
        for error in errors.values():
            assert re.search(
                f"handler {name}: .*({TOLD[act]})|exec in container .*: no end within", str(error)
            )
        async with rig.driver() as driver:
            for target in reversed(rig.targets):
                await driver.delete(target)
                assert rig.processes(target) == []
            rig.targets.clear()
            rig.exits.clear()
            rig.pod = PodId(secrets.token_hex(32))
            again = await rig.run(driver, "sh", "-c", "exit 3")
            assert (await rig.ended(again)).code == 3

    play(story, real=name)


@pytest.mark.parametrize(
    ("name", "shared", "act"),
    [("kata-go", True, "hang"), ("kata-go", True, "fail"), ("runsc-old", False, "drop")],
)
def test_a_shim_that_does_not_kill_ends_with_all_that_it_serves(
    play: Play, name: str, shared: bool, act: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(rig: Rig) -> None:
        with failing(rig, {"Kill": Plan(act=act, words=WORDS)}):
            async with impatient(rig) as driver:
                other = await rig.run(driver, "sleep", "100")
                target = await rig.run(driver, "sleep", "100")
                await driver.kill(target, 9, everything=True)
                assert (await rig.ended(target)).code == 137
                assert (await driver.observe(target)).status is Status.STOPPED
                assert rig.processes(target) == []
                if shared:
                    assert (await rig.ended(other)).code == 137
                else:
                    assert (await driver.observe(other)).status is Status.RUNNING
                for each in reversed(rig.targets):
                    await driver.delete(each)
                assert list((rig.base / f"run/shims/{name}").iterdir()) == []
                assert list((rig.base / "run/fifos").iterdir()) == []
        (told,) = [record for record in caplog.records if "does not end" in record.message]
        assert ("all containers of its pod" in told.message) == shared
        assert re.search(f"handler {name}: .*({TOLD[act]})", str(told.__dict__["error"]))

    play(story, real=name)


@pytest.mark.parametrize("name", NAMES)
def test_a_look_at_a_shim_that_hangs_ends_nothing_and_the_next_restart_does(
    play: Play, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shims, "_ANSWER_TIME", PATIENCE)

    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            assert target.monitor is not None
            process.signal(target.monitor, signal.SIGSTOP)
        async with rig.driver() as driver:
            unknown = Observed(status=Status.UNKNOWN, process=target.process)
            assert await driver.observe(target) == unknown
            with pytest.raises(CrispError, match=f"does not answer within {PATIENCE:g} s"):
                await driver.exec_sync(target, rig.exec("true"))
            assert process.alive(target.monitor)
            process.signal(target.monitor, signal.SIGCONT)
            assert await driver.observe(target) == replace(unknown, status=Status.RUNNING)
            process.signal(target.monitor, signal.SIGSTOP)
        async with rig.driver() as driver:
            ended = await driver.adopt(target)
            assert (ended.status, ended.exit and ended.exit.code) == (Status.STOPPED, 137)
            assert not process.alive(target.monitor)

    play(story, real=name)


def test_a_shim_that_answers_and_does_not_tell_of_an_end_goes_on_with_what_else_it_serves(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(rig: Rig) -> None:
        with failing(rig, {"Wait": Plan(act="hang")}):
            async with rig.driver(timeout=LIMIT, kill_time=PATIENCE) as driver:
                other = await rig.run(driver, "sleep", "100")
                target = await rig.run(driver, "sleep", "100")
                with pytest.raises(Deadline, match=r"the shim of container .* does not tell of its end"):
                    await driver.kill(target, 9, everything=True)
                assert rig.processes(target) == []
                assert (await driver.observe(other)).status is Status.RUNNING
                for each in (target, other):
                    await driver.delete(each)
                assert list((rig.base / "run/shims/runwasi").iterdir()) == []
        assert [record for record in caplog.records if "does not end" in record.message] == []

    play(story)


@pytest.mark.parametrize(
    ("plan", "kind", "words"),
    [
        (Plan(act="fail", words=WORDS), RuntimeFailed, rf"wasmtime-v1 start of \w+ \(status 1\): {WORDS}"),
        (Plan(act="fail", words=WORDS, after=True), RuntimeFailed, WORDS),
        (Plan(act="die"), RuntimeFailed, "killed by signal 9"),
        (Plan(act="nothing"), RuntimeFailed, "start printed nothing"),
        (Plan(act="garbage"), RuntimeFailed, "start printed .* which is no address"),
        (Plan(act="hang"), Deadline, rf"start of shim .* within {3 * PATIENCE:g} s"),
    ],
    ids=["fails", "fails after it worked", "dies", "says nothing", "garbage", "hangs"],
)
def test_a_shim_that_does_not_start_is_told_and_leaves_nothing(
    play: Play, plan: Plan, kind: type[CrispError], words: str
) -> None:
    async def story(rig: Rig) -> None:
        with failing(rig, {"start": plan}):
            async with impatient(rig) as driver:
                with pytest.raises(kind, match=f"handler runwasi: .*{words}"):
                    await rig.create(driver, "sleep", "100")
                assert rig.processes(rig.targets[-1]) == []
                assert list((rig.base / "run/shims/runwasi").iterdir()) == []
                assert list((rig.base / "run/fifos").iterdir()) == []

    play(story)


def test_a_delete_of_a_dead_shim_that_fails_is_told_and_can_be_repeated(play: Play) -> None:
    async def story(rig: Rig) -> None:
        with failing(rig, {"delete": Plan(act="fail", words=WORDS), "Delete": Plan(act="die")}):
            async with impatient(rig) as driver:
                target = await rig.run(driver, "sleep", "100")
                with pytest.raises(
                    RuntimeFailed, match=rf"handler runwasi: .* delete of {target.id} .*{WORDS}"
                ):
                    await driver.delete(target)
        async with rig.driver() as driver:
            await driver.delete(target)
            assert (await driver.observe(replace(target, process=None))).status is Status.ABSENT

    play(story)


def test_what_may_never_have_run_is_not_told_as_ended_when_its_shim_is_gone(play: Play) -> None:
    """A start that is cut off before the shim's answer leaves what a dead shim does: it can be repeated."""

    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.create(driver, "sleep", "100")
            assert target.monitor is not None
            process.signal(target.monitor, signal.SIGKILL)
            assert await process.wait_gone(target.monitor, 10 * PATIENCE)
            await rig.ended(target)
        forgotten = replace(target, process=None, monitor=None)
        rig.targets[-1] = forgotten
        async with rig.driver() as driver:
            assert await driver.adopt(forgotten) == Observed(status=Status.ABSENT)
            await driver.delete(forgotten)
            await driver.create(forgotten, rig.spec(forgotten, ["sleep", "100"]))
            assert (await driver.observe(forgotten)).status is Status.CREATED

    play(story, real="shim-runc-v2")


def test_half_a_container_that_a_cut_off_create_has_left_is_removed(play: Play) -> None:
    """With its caller a shim gives up what it was creating; the runtime below keeps the container's name."""

    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            other = await rig.run(driver, "sleep", "100")  # for which the shim goes on
            target = await rig.create(driver, "sleep", "100")
            shim = await driver._shims.find(target)  # type: ignore[attr-defined]
            assert target.process is not None
            process.signal(target.process, signal.SIGKILL)
            await shim.task.wait(target.id)
            await shim.task.delete(target.id)
            (rig.base / "root/crisp" / target.id).mkdir()  # all that runc has made until then
        forgotten = replace(target, process=None, monitor=None)
        rig.targets[-1] = forgotten
        async with rig.driver() as driver:
            assert (await driver.adopt(other)).status is Status.RUNNING
            assert await driver.adopt(forgotten) == Observed(status=Status.ABSENT)
            await driver.delete(forgotten)
            assert (await driver.observe(other)).status is Status.RUNNING
            await driver.create(forgotten, rig.spec(forgotten, ["sleep", "100"]))
            assert (await driver.observe(forgotten)).status is Status.CREATED

    play(story, real="shim-runc-v2")


def test_a_kill_for_want_of_memory_that_is_told_after_the_end_is_not_lost(play: Play) -> None:
    async def story(rig: Rig) -> None:
        with failing(rig, {"oom": Plan(act="late", seconds=0.1)}):
            async with rig.driver() as driver:
                fills = "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done"
                target = await rig.run(driver, "sh", "-c", fills, memory=16 << 20)
                ended = await rig.ended(target)
                assert (ended.code, ended.oom_killed) == (137, True)

    play(story, real="kata-go")


def test_options_that_a_shim_refuses_are_told_in_its_words(play: Play) -> None:
    async def story(rig: Rig) -> None:
        rig.found = replace(rig.found, config_path=Path("/no/such/configuration.toml"))
        async with rig.driver() as driver:
            words = r"handler kata-go: .* create of container .*/no/such/configuration\.toml: no such file"
            with pytest.raises(RuntimeFailed, match=words):
                await rig.create(driver, "sleep", "100")

    play(story, real="kata-go")


def test_a_shim_that_wants_a_disk_for_a_root_file_system_says_so(play: Play) -> None:
    """Firecracker has no shared file system; root file systems on block devices are not made here."""

    async def story(rig: Rig) -> None:
        with failing(rig, {}, ways="kata-fc"):
            async with rig.driver() as driver:
                with pytest.raises(RuntimeFailed, match=r"handler kata-go: .*one mount of a block device"):
                    await rig.create(driver, "sleep", "100")

    play(story, real="kata-go")
