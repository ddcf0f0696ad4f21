"""Joined work: done once, ended by the last who leaves, gone when it is over."""

from __future__ import annotations

import asyncio

import pytest

from shim.images.flights import Flights


class Work:
    """Work that ends when told; counts how often it began, ended early and cleaned up."""

    def __init__(self) -> None:
        self.begun = 0
        self.cleaned = 0
        self.go = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cleaned += 1
            raise
        return f"result {self.begun}"


def test_equal_callers_share_one_run_and_its_result() -> None:
    async def scene() -> None:
        flights: Flights[str, str] = Flights()
        work = Work()
        callers = [asyncio.ensure_future(flights.join("k", work)) for _ in range(5)]
        await asyncio.sleep(0)
        assert "k" in flights
        work.go.set()
        assert await asyncio.gather(*callers) == ["result 1"] * 5
        assert "k" not in flights

    asyncio.run(scene())


def test_other_keys_run_apart_and_a_later_caller_starts_anew() -> None:
    async def scene() -> None:
        flights: Flights[str, str] = Flights()
        work = Work()
        work.go.set()
        assert await asyncio.gather(flights.join("a", work), flights.join("b", work)) == [
            "result 1",
            "result 2",
        ]
        assert await flights.join("a", work) == "result 3"

    asyncio.run(scene())


def test_a_failure_reaches_every_caller_and_is_not_kept() -> None:
    async def scene() -> None:
        flights: Flights[str, int] = Flights()

        async def fail() -> int:
            raise ValueError("once")

        async def succeed() -> int:
            return 1

        results = await asyncio.gather(*(flights.join("k", fail) for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["once"] * 3
        assert await flights.join("k", succeed) == 1

    asyncio.run(scene())


def test_one_caller_that_leaves_does_not_end_the_work_of_the_others() -> None:
    async def scene() -> None:
        flights: Flights[str, str] = Flights()
        work = Work()
        one, other = (asyncio.ensure_future(flights.join("k", work)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        work.go.set()
        assert await other == "result 1"
        assert work.cleaned == 0

    asyncio.run(scene())


def test_the_last_caller_that_leaves_ends_the_work_and_waits_for_its_cleaning_up() -> None:
    async def scene() -> None:
        flights: Flights[str, str] = Flights()
        work = Work()
        callers = [asyncio.ensure_future(flights.join("k", work)) for _ in range(3)]
        await asyncio.sleep(0)
        for caller in callers:
            caller.cancel()
        results = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 3
        assert (work.begun, work.cleaned, "k" in flights) == (1, 1, False)
        work.go.set()
        assert await flights.join("k", work) == "result 2"

    asyncio.run(scene())


def test_closing_ends_what_runs() -> None:
    async def scene() -> None:
        flights: Flights[str, str] = Flights()
        work = Work()
        caller = asyncio.ensure_future(flights.join("k", work))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await flights.close()
        assert work.cleaned == 1
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(scene())
