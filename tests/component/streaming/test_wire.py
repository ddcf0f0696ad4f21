"""The connection to a client: a stream that never has to wait does not keep the daemon from anything else."""

from __future__ import annotations

import asyncio
import socket

from api.streaming.wire import Wire

PIECES = 200


def test_every_piece_that_is_sent_lets_others_have_a_turn() -> None:
    async def story() -> int:
        ours, theirs = socket.socketpair()
        with theirs:
            wire = Wire(*await asyncio.open_connection(sock=ours), idle=60)
            turns = 0

            async def another() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            other = asyncio.ensure_future(another())
            for _ in range(PIECES):  # far less than the kernel takes at once
                await wire.send(b"piece")
            other.cancel()
            await wire.close()
        return turns

    assert asyncio.run(story()) >= PIECES - 1
