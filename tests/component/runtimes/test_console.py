"""The terminal that a runtime hands over is taken whenever it was sent, also by one that has ended since."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from shim.runtimes.console import Console


async def ended() -> None:
    """A runtime that has ended when it is looked at."""


async def running() -> None:
    await asyncio.Event().wait()


def send(path: Path, *descriptors: int) -> None:
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.connect(str(path))
        if descriptors:
            socket.send_fds(runtime, [b"tty"], list(descriptors))


@pytest.mark.parametrize("runtime", [ended, running])
def test_a_terminal_that_was_sent_is_taken(tmp_path: Path, runtime: object) -> None:
    async def story() -> bytes:
        assert callable(runtime)
        reading, writing = os.pipe()
        with contextlib.closing(Console(tmp_path)) as console:
            await asyncio.to_thread(send, console.path, writing)
            taken = await console.receive(runtime())
        assert taken is not None
        os.write(taken, b"x")
        for descriptor in (taken, writing):
            os.close(descriptor)
        try:
            return os.read(reading, 10)
        finally:
            os.close(reading)

    assert asyncio.run(story()) == b"x"


def test_a_runtime_that_ends_without_a_terminal_has_sent_none(tmp_path: Path) -> None:
    async def story(*, connects: bool) -> int | None:
        with contextlib.closing(Console(tmp_path)) as console:
            if connects:
                await asyncio.to_thread(send, console.path)
            return await console.receive(ended())

    assert asyncio.run(story(connects=False)) is None
    assert asyncio.run(story(connects=True)) is None
