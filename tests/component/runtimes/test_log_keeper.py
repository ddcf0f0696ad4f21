"""The daemon's end of the log process: a caller that goes away in the middle leaves no descriptor open."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from shim import cgroups
from shim.logger import keeper
from shim.logger.keeper import LogKeeper, Outlet

Story = Callable[[LogKeeper], Coroutine[Any, Any, object]]


def read_fifo(kept: LogKeeper) -> Coroutine[Any, Any, object]:
    fifo = kept.socket_path.parent / "out"
    os.mkfifo(fifo)
    return kept.add(Outlet(id="one", stdout=str(fifo)))


STORIES: dict[str, tuple[str, Story]] = {
    "ask": ("_connect", lambda kept: kept.drain("one")),
    "add": ("_hold", read_fifo),
}


@pytest.mark.parametrize("story", sorted(STORIES))
def test_a_cancel_while_something_is_opened_leaves_it_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: str
) -> None:
    name, begin = STORIES[story]
    begun, go = threading.Event(), threading.Event()
    owner = LogKeeper if name == "_connect" else keeper
    real = getattr(owner, name)

    def slow(*given: Any) -> Any:
        opened = real(*given)
        begun.set()
        go.wait(10)
        return opened

    monkeypatch.setattr(owner, name, slow)

    async def cut_off() -> None:
        kept = LogKeeper(
            directory=tmp_path, cgroups=cgroups.Cgroups(cgroups.find_hierarchies()), cgroup="/unused"
        )
        task = asyncio.ensure_future(begin(kept))
        before = _descriptors()
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.wait({task})
        assert task.cancelled()
        assert _descriptors() == before
        await kept.close()

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        asyncio.run(cut_off(), debug=True)


def test_a_connection_that_comes_when_the_keeper_is_closed_is_closed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    real = LogKeeper._connect

    def slow(kept: LogKeeper) -> socket.socket:
        made = real(kept)
        begun.set()
        go.wait(10)
        return made

    monkeypatch.setattr(LogKeeper, "_connect", slow)

    async def closed_meanwhile() -> None:
        kept = LogKeeper(
            directory=tmp_path, cgroups=cgroups.Cgroups(cgroups.find_hierarchies()), cgroup="/unused"
        )
        task = asyncio.ensure_future(kept.drain("one"))
        before = _descriptors()
        await asyncio.to_thread(begun.wait, 10)
        await kept.close()
        go.set()
        with pytest.raises(keeper.Lost):
            await task
        assert _descriptors() == before

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        asyncio.run(closed_meanwhile(), debug=True)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - how many
