"""Exec with its streams in hand and attach: terminals, slow and vanishing clients, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from oci.errors import Absent, Full, RuntimeFailed
from shim import process
from shim.runtimes import attach
from shim.runtimes.driver import Driver, Output, Session, Size, StreamRequest, Target
from tests.component.runtimes.conftest import Play
from tests.component.runtimes.rig import Rig, output

BOTH = frozenset(Output)


async def everything(session: Session, of: Output = Output.STDOUT) -> bytes:
    taken = b""
    while data := await session.read(of):
        taken += data
    return taken


async def until(session: Session, words: bytes, of: Output = Output.STDOUT) -> bytes:
    taken = b""
    while words not in taken:
        data = await session.read(of)
        assert data, f"the output ended after {taken!r}"
        taken += data
    return taken


@contextlib.asynccontextmanager
async def executing(
    rig: Rig, driver: Driver, target: Target, *args: str, tty: bool = False, size: Size | None = None
) -> AsyncIterator[Session]:
    outputs = frozenset({Output.STDOUT}) if tty else BOTH
    request = StreamRequest(process=rig.process(args, terminal=tty), stdin=True, outputs=outputs, size=size)
    session = await driver.exec_stream(target, request)
    try:
        yield session
    finally:
        await session.close()


def test_streams_go_both_ways_and_the_code_comes_after_them(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            async with executing(rig, driver, target, "sh", "-c", "cat; echo err >&2; exit 7") as session:
                await session.write(b"hello")
                session.end_input()
                both = await asyncio.gather(everything(session), everything(session, Output.STDERR))
                assert (both, await session.wait()) == ([b"hello", b"err\n"], 7)

    play(story)


@pytest.mark.parametrize("outputs", [frozenset({Output.STDOUT}), frozenset({Output.STDERR}), frozenset()])
def test_an_output_that_nobody_asked_for_holds_nothing_up(play: Play, outputs: frozenset[Output]) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            script = "yes | head -c 300000; yes | head -c 300000 >&2; exit 4"
            process = rig.process(["sh", "-c", script])
            session = await driver.exec_stream(
                target, StreamRequest(process=process, stdin=False, outputs=outputs)
            )
            try:
                assert session.outputs == outputs
                for each in outputs:
                    assert len(await everything(session, each)) == 300000
                assert await session.wait() == 4
            finally:
                await session.close()

    play(story)


def test_a_large_stream_arrives_whole(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            async with executing(rig, driver, target, "cat") as session:

                async def send() -> None:
                    for _ in range(64):
                        await session.write(bytes(range(256)) * 256)
                    session.end_input()

                _, taken, said = await asyncio.gather(
                    send(), everything(session), everything(session, Output.STDERR)
                )
                assert (taken == bytes(range(256)) * 256 * 64, said, await session.wait()) == (True, b"", 0)

    play(story)


def test_a_terminal_has_its_size_from_the_beginning_and_changes_it(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            script = "busybox stty size; trap 'busybox stty size; exit 3' WINCH; echo ready; "
            script += "while read x; do :; done"
            size = Size(width=123, height=45)
            async with executing(rig, driver, target, "sh", "-c", script, tty=True, size=size) as session:
                assert (await until(session, b"ready")).replace(b"\r", b"").startswith(b"45 123\n")
                await session.resize(Size(width=77, height=33))
                assert await until(session, b"33 77\r\n")
                assert (await everything(session), await session.wait()) == (b"", 3)

    play(story)


def test_a_terminal_loses_nothing_of_a_process_that_ends_at_once(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")

            async def once() -> tuple[bytes, int | None]:
                async with executing(rig, driver, target, "echo", "hello", tty=True) as session:
                    return (await everything(session)).replace(b"\r", b""), await session.wait()

            for _ in range(3):
                assert await asyncio.gather(*(once() for _ in range(8))) == [(b"hello\n", 0)] * 8

    play(story)


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
@pytest.mark.parametrize("program", ["nonesuch", "/etc/plain"])
def test_a_missing_program_is_told_by_the_end_and_not_in_the_output(
    play: Play, program: str, tty: bool
) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            async with executing(rig, driver, target, program, tty=tty) as session:
                assert [await everything(session, each) for each in session.outputs] == [b""] * len(
                    session.outputs
                )
                with pytest.raises(RuntimeFailed) as failure:
                    await session.wait()
                assert failure.value.program_missing

    play(story)


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_a_session_that_is_closed_kills_all_that_it_started(play: Play, tty: bool) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            before = set(rig.processes(target))
            script = "sleep 1000 & setsid sleep 1000 & echo started; sleep 1000"
            async with executing(rig, driver, target, "sh", "-c", script, tty=tty) as session:
                await until(session, b"started")
            assert set(rig.processes(target)) == before

    play(story)


def test_a_session_can_be_closed_at_once(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sleep", "100")
            before = set(rig.processes(target))
            for _ in range(5):
                async with executing(rig, driver, target, "sleep", "1000"):
                    pass
            assert set(rig.processes(target)) == before
            assert rig.execs() == []

    play(story)


def test_what_stays_behind_with_the_output_open_is_ended_after_a_while(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver(exec_drain=0.3) as driver:
            target = await rig.run(driver, "sleep", "100")
            before = set(rig.processes(target))
            async with executing(rig, driver, target, "sh", "-c", "sleep 1000 & echo done") as session:
                both = await asyncio.gather(everything(session), everything(session, Output.STDERR))
                assert (both, await session.wait()) == ([b"done\n", b""], 0)
            assert set(rig.processes(target)) == before

    play(story)


def test_output_that_a_slow_client_has_not_taken_is_not_lost(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver(exec_drain=0.2) as driver:
            target = await rig.run(driver, "sleep", "100")
            async with executing(rig, driver, target, "sh", "-c", "yes | head -c 150000") as session:
                await session.read(Output.STDERR)
                assert len(await everything(session)) == 150000
                assert await session.wait() == 0

    play(story)


def test_an_attached_client_sees_what_comes_and_feeds_the_container(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "while read x; do echo out $x; echo err $x >&2; done; echo end", stdin=True, stdin_once=True)  # fmt: skip  # noqa: E501
            first, second = await driver.attach(target), await driver.attach(target)
            await first.write(b"one\n")
            for session in (first, second):
                assert await until(session, b"out one\n") == b"out one\n"
                assert await until(session, b"err one\n", Output.STDERR) == b"err one\n"
            first.end_input()
            assert await asyncio.gather(everything(first), everything(second)) == [b"end\n", b"end\n"]
            await asyncio.gather(first.wait(), second.wait())
            for session in (first, second):
                await session.close()
            assert (await rig.ended(target)).code == 0
            assert output(target) == "out one\nend\n"

    play(story)


def test_who_detaches_leaves_the_container_alone(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "sh", "-c", "while read x; do echo $x; done", stdin=True)
            for word in (b"one\n", b"two\n"):
                session = await driver.attach(target)
                await session.write(word)
                assert await until(session, word) == word
                session.end_input()
                await session.close()
            assert target.process is not None
            assert process.alive(target.process)

    play(story)


def test_an_attached_terminal_can_be_resized(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            script = "trap 'busybox stty size' WINCH; while :; do read x && echo heard $x; done"
            target = await rig.run(driver, "sh", "-c", script, tty=True, stdin=True)
            session = await driver.attach(target)
            await session.write(b"you\n")
            await until(session, b"heard you")
            await session.resize(Size(width=81, height=25))
            await until(session, b"25 81")
            await session.close()

    play(story)


def test_a_client_that_does_not_read_is_cut_and_nobody_else_suffers(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "KEPT", 2_000_000)

    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            # The next piece comes when the good client has read the last, however busy the machine is.
            script = "while read go; do yes | head -c 1000000; echo end; done"
            target = await rig.run(driver, "sh", "-c", script, stdin=True)
            slow, good = await driver.attach(target), await driver.attach(target)
            for _ in range(9):
                await good.write(b"\n")
                assert len(await until(good, b"end\n")) == 1_000_004
            with pytest.raises(Full, match="cut off"):
                await slow.wait()
            await good.close()
            assert len(output(target)) == 9_000_036

    play(story)


def test_there_is_nothing_to_attach_to_when_the_container_has_ended(play: Play) -> None:
    async def story(rig: Rig) -> None:
        async with rig.driver() as driver:
            target = await rig.run(driver, "true")
            await rig.ended(target)
            with pytest.raises(Absent):
                await driver.attach(target)

    play(story)
