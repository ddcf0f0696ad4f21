"""Operations outlive their callers; retries join."""

from __future__ import annotations

import asyncio

import pytest

from oci.errors import Busy, Duplicate, Internal
from shim.lifecycle.operations import Operations


def test_an_equal_request_joins_the_work_in_flight() -> None:
    async def main() -> tuple[list[int], int]:
        operations = Operations()
        runs = 0
        gate = asyncio.Event()

        async def work() -> int:
            nonlocal runs
            runs += 1
            await gate.wait()
            return 42

        callers = [asyncio.create_task(operations.join("key", "request", work)) for _ in range(3)]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*callers), runs

    assert asyncio.run(main()) == ([42, 42, 42], 1)


def test_another_request_under_the_same_key_is_refused() -> None:
    async def main() -> None:
        operations = Operations()
        gate = asyncio.Event()

        async def work() -> None:
            await gate.wait()

        first = asyncio.create_task(operations.join("key", "one", work))
        await asyncio.sleep(0)
        with pytest.raises(Duplicate):
            await operations.join("key", "two", work)
        gate.set()
        await first

    asyncio.run(main())


def test_work_goes_on_when_its_only_caller_leaves_and_a_retry_gets_its_result() -> None:
    async def main() -> str:
        operations = Operations()
        gate = asyncio.Event()

        async def work() -> str:
            await gate.wait()
            return "done"

        caller = asyncio.create_task(operations.join("key", "request", work))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert operations.busy == 1
        retry = asyncio.create_task(operations.join("key", "request", work))
        await asyncio.sleep(0)
        gate.set()
        return await retry

    assert asyncio.run(main()) == "done"


def test_a_failure_that_nobody_waits_for_is_no_unseen_exception() -> None:
    async def main() -> None:
        operations = Operations()
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

        async def work() -> None:
            await asyncio.sleep(0)
            raise Internal("broken")

        caller = asyncio.create_task(operations.join("key", "request", work))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await operations.close(grace=1)
        assert operations.busy == 0
        assert complaints == []

    asyncio.run(main())


def test_closing_lets_work_finish_then_cancels_it_and_takes_nothing_new() -> None:
    async def main() -> list[str]:
        operations = Operations()
        ends: list[str] = []

        async def quick() -> None:
            await asyncio.sleep(0)
            ends.append("quick finished")

        async def endless() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ends.append("endless undone")

        callers = [
            asyncio.create_task(operations.join("a", None, quick)),
            asyncio.create_task(operations.join("b", None, endless)),
        ]
        await asyncio.sleep(0)
        await operations.close(grace=0.01)
        with pytest.raises(Busy):
            await operations.join("c", None, quick)
        await asyncio.gather(*callers, return_exceptions=True)
        return ends

    assert asyncio.run(main()) == ["quick finished", "endless undone"]
