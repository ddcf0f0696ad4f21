"""The undo stack: everything runs, in reverse, whatever fails or cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from oci.errors import Internal
from shim.lifecycle.undo import Debt, Undo, run_all, to_the_end


class Journal:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.debts: tuple[Debt, ...] | None = None

    def step(self, name: str, *, fails: bool = False) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            await asyncio.sleep(0)
            self.lines.append(name)
            if fails:
                raise Internal(f"{name} does not want to")

        return run

    async def settle(self, debts: tuple[Debt, ...]) -> None:
        self.debts = debts


def test_leaving_without_commit_runs_the_steps_the_last_pushed_first() -> None:
    journal = Journal()

    async def work() -> None:
        async with Undo(journal.settle) as undo:
            undo.push("a", journal.step("a"))
            undo.push("b", journal.step("b"))
            raise ValueError("the step after b")

    with pytest.raises(ValueError, match="the step after b"):
        asyncio.run(work())
    assert journal.lines == ["b", "a"]
    assert journal.debts == ()


def test_a_commit_keeps_everything() -> None:
    journal = Journal()

    async def work() -> None:
        async with Undo(journal.settle) as undo:
            undo.push("a", journal.step("a"))
            undo.commit()

    asyncio.run(work())
    assert journal.lines == []
    assert journal.debts is None


def test_a_failing_step_is_owed_the_others_run_and_the_first_error_stays() -> None:
    journal = Journal()

    async def work() -> None:
        async with Undo(journal.settle) as undo:
            undo.push("a", journal.step("a"))
            undo.push("b", journal.step("b", fails=True))
            undo.push("c", journal.step("c"))
            raise KeyError("original")

    with pytest.raises(KeyError, match="original"):
        asyncio.run(work())
    assert journal.lines == ["c", "b", "a"]
    assert journal.debts == (Debt("b", "b does not want to"),)


def test_a_step_that_does_not_end_is_cut_at_its_budget() -> None:
    async def work() -> tuple[Debt, ...]:
        return await run_all([("slow", 0.01, asyncio.Event().wait)])  # type: ignore[list-item]

    assert asyncio.run(work()) == (Debt("slow", "no end within 0.01 s"),)


@pytest.mark.parametrize("second_cancel_after", range(6))
def test_a_second_cancellation_never_stops_the_unwinding(second_cancel_after: int) -> None:
    journal = Journal()

    async def work() -> None:
        async with Undo(journal.settle) as undo:
            undo.push("a", journal.step("a"))
            undo.push("b", journal.step("b"))
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        for _ in range(second_cancel_after):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The steps run in a task of their own; it has ended with the stack's owner.
        assert journal.lines == ["b", "a"]
        assert journal.debts == ()

    asyncio.run(main())


def test_to_the_end_returns_the_result_and_raises_the_works_own_error() -> None:
    async def good() -> int:
        await asyncio.sleep(0)
        return 7

    async def bad() -> int:
        raise Internal("no")

    assert asyncio.run(to_the_end(good())) == 7
    with pytest.raises(Internal, match="no"):
        asyncio.run(to_the_end(bad()))
