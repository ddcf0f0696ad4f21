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


def test_an_object_is_held_by_one_at_a_time_and_forgotten_afterwards() -> None:
    async def main() -> list[str]:
        operations = Operations()
        order: list[str] = []

        async def hold(name: str) -> None:
            async with operations.exclusive("object"):
                order.append(f"{name} in")
                await asyncio.sleep(0)
                order.append(f"{name} out")

        await asyncio.gather(hold("a"), hold("b"))
        assert operations._locks == {}
        return order

    assert asyncio.run(main()) == ["a in", "a out", "b in", "b out"]


def test_a_listener_hears_of_operations_that_fail_and_of_no_others() -> None:
    async def story() -> list[str]:
        operations = Operations()
        heard: list[str] = []
        operations.on_failure(lambda: heard.append("failed"))

        async def work(error: Exception | None) -> str:
            if error is not None:
                raise error
            return "done"

        assert await operations.join("one", None, lambda: work(None)) == "done"
        assert heard == []
        with pytest.raises(Busy):
            await operations.join("two", None, lambda: work(Busy("not now")))
        return heard

    assert asyncio.run(story(), debug=True) == ["failed"]


def test_an_object_is_held_while_somebody_has_or_awaits_its_lock() -> None:
    async def story() -> list[bool]:
        operations = Operations()
        seen = [operations.held("a")]
        async with operations.exclusive("a"):
            seen.append(operations.held("a"))
            seen.append(operations.held("b"))
        return [*seen, operations.held("a")]

    assert asyncio.run(story(), debug=True) == [False, True, False, False]
