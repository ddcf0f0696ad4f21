"""One at a time for each key, also while users come and go; nothing is kept of a key that nobody uses."""

import asyncio

import pytest

from shim.lifecycle.locks import Locks


def test_one_user_at_a_time_and_in_order() -> None:
    async def story() -> None:
        locks = Locks()
        inside: list[int] = []
        order: list[int] = []

        async def use(number: int) -> None:
            async with locks.exclusive("pod"):
                inside.append(number)
                assert inside == [number]
                order.append(number)
                await asyncio.sleep(0)
                inside.remove(number)

        first = [asyncio.create_task(use(number)) for number in range(5)]
        while not order:
            await asyncio.sleep(0)
        # these come while others wait and the first one goes
        late = []
        for number in range(5, 10):
            late.append(asyncio.create_task(use(number)))
            await asyncio.sleep(0)
        await asyncio.gather(*first, *late)
        assert order == list(range(10))
        assert not locks.held("pod")

    asyncio.run(story())


def test_another_key_does_not_wait() -> None:
    async def story() -> None:
        locks = Locks()
        async with locks.exclusive("a"), asyncio.timeout(5), locks.exclusive("b"):
            assert locks.held("a") and locks.held("b")

    asyncio.run(story())


def test_a_lock_outlives_a_cancelled_wait_and_a_failure() -> None:
    async def story() -> None:
        locks = Locks()

        async def use() -> None:
            async with locks.exclusive("pod"):
                raise ValueError

        async with locks.exclusive("pod"):
            waiting = asyncio.create_task(use())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert locks.held("pod")
        assert not locks.held("pod")
        with pytest.raises(ValueError):
            await use()
        assert not locks.held("pod")

    asyncio.run(story())
