"""Blocking work outlasts the cancel of its caller, and the caller knows."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shim.threads import in_thread


def test_the_result_of_the_work_is_returned() -> None:
    assert asyncio.run(in_thread(lambda first, second: first + second, "a", second="b"), debug=True) == "ab"


def test_the_error_of_the_work_is_raised() -> None:
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(in_thread(work), debug=True)


@pytest.mark.parametrize("cancels", [1, 3])
@pytest.mark.parametrize("fails", [False, True])
def test_a_cancel_takes_effect_when_the_work_is_done(cancels: int, fails: bool) -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(10)
        done.set()
        if fails:
            raise ValueError("nobody hears this")

    async def story() -> None:
        task = asyncio.ensure_future(in_thread(work))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
        go.set()
        await asyncio.wait({task})
        assert done.is_set()
        assert task.cancelled()

    asyncio.run(story(), debug=True)
