"""Exec and attach: between one client's conversation and a session of the runtime's driver.

Owns who waits for whom: output goes as fast as the client takes it, input as fast as the process does, and
whichever ends first ends the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api.streaming.channels import Channel, Ended, Failed, Outcome, Wanted
from api.streaming.events import Gone, Input, InputEnd, Ready, RemoteEvent, Reply, Resize
from api.streaming.remote import Remote
from api.streaming.wire import ClientGone, Wire
from oci.errors import CrispError
from shim.runtimes.driver import Output, Session, Size

log = logging.getLogger("crisp.streaming")

FIRST_SIZE: Final = 0.3
"""Seconds that a terminal's process waits for the terminal's size."""
_CHANNELS: Final = {Output.STDOUT: Channel.STDOUT, Output.STDERR: Channel.STDERR}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCommand:
    """What an exec or attach URL stands for. `open` starts it, when the client is there."""

    wanted: Wanted
    open: Callable[[Size | None], Awaitable[Session]]


class Conversation:
    """One connection, from the answer 101 on. `creation`: seconds that the client has to open its streams."""

    def __init__(self, wire: Wire, remote: Remote, command: RemoteCommand, *, creation: float) -> None:
        self._wire = wire
        self._remote = remote
        self._command = command
        self._creation = creation
        self._ready = False
        self._early: list[RemoteEvent] = []  # what the client said before there was a process
        self._gone = False

    async def run(self, first: bytes) -> None:
        """To the end; `first` came right behind the request. Raises ClientGone."""
        try:
            async with asyncio.timeout(self._creation):
                self._hear(self._remote.opening())
                self._hear(self._remote.receive(first))
                while not self._ready and not self._gone:
                    await self._listen()
        except TimeoutError:
            await self._end(Failed(message=f"not all streams came within {self._creation:g} s"))
            return
        if self._gone:
            await self._wire.finish()
            return
        await self._await_size()
        try:
            session = await self._command.open(self._size())
        except CrispError as error:
            await self._end(Failed(message=str(error)))
            return
        try:
            outcome = await self._converse(session)
        finally:
            await session.close()
        if outcome is None:
            await self._wire.finish()
        else:
            await self._end(outcome)

    async def _listen(self) -> None:
        data = await self._wire.read()
        if not data:
            raise ClientGone("the client went away before its streams were there")
        self._hear(self._remote.receive(data))
        await self._wire.send(b"")  # a client that asks for answers and takes none is read no further

    def _hear(self, events: Sequence[RemoteEvent]) -> None:
        """Answer, and keep the rest for the process."""
        for event in events:
            if isinstance(event, Reply):
                self._wire.write(event.data)
            elif isinstance(event, Ready):
                self._ready = True
            elif isinstance(event, Gone):
                _note(event)
                self._gone = True
            else:
                self._early.append(event)

    async def _await_size(self) -> None:
        if not self._remote.resizable or self._early:
            return
        try:
            async with asyncio.timeout(FIRST_SIZE):
                await self._listen()
        except TimeoutError:
            pass  # it has none to tell

    def _size(self) -> Size | None:
        sizes = [event for event in self._early if isinstance(event, Resize)]
        return Size(width=sizes[-1].width, height=sizes[-1].height) if sizes else None

    async def _converse(self, session: Session) -> Outcome | None:
        """How the session ended; None when it was the client who ended it."""
        speaking = asyncio.ensure_future(self._speak(session))
        hearing = asyncio.ensure_future(self._follow(session))
        try:
            await asyncio.wait({speaking, hearing}, return_when=asyncio.FIRST_COMPLETED)
            return speaking.result() if speaking.done() else hearing.result()
        finally:
            await _cancel(speaking, hearing)

    async def _speak(self, session: Session) -> Outcome:
        """All output to its end, then how it ended."""
        pumps = [asyncio.ensure_future(self._pump(session, output)) for output in session.outputs]
        end = asyncio.ensure_future(session.wait())
        try:
            await asyncio.wait({*pumps, end}, return_when=asyncio.FIRST_EXCEPTION)
            if end.done():
                code = end.result()  # its failure explains those of the pumps
            for pump in pumps:
                if pump.done():
                    pump.result()
        except CrispError as error:
            return Failed(message=str(error))
        finally:
            await _cancel(*pumps, end)
        return Ended(code=code)

    async def _pump(self, session: Session, output: Output) -> None:
        channel = _CHANNELS[output]
        while data := await session.read(output):
            await self._wire.send(self._remote.output(channel, data))
        self._wire.write(self._remote.finish_output(channel))

    async def _follow(self, session: Session) -> None:
        """What the client says, until it goes."""
        for event in self._early:
            await self._act(session, event)
        self._early.clear()
        while not self._gone:
            data = await self._wire.read()
            if not data:
                return
            for event in self._remote.receive(data):
                await self._act(session, event)

    async def _act(self, session: Session, event: RemoteEvent) -> None:
        if isinstance(event, Input):
            await self._wire.deliver(session.write(event.data))
        elif isinstance(event, Reply):
            await self._wire.send(event.data)
        elif isinstance(event, Resize):
            await session.resize(Size(width=event.width, height=event.height))
        elif isinstance(event, InputEnd):
            session.end_input()
        elif isinstance(event, Gone):
            _note(event)
            self._gone = True

    async def _end(self, outcome: Outcome) -> None:
        self._wire.write(self._remote.finish(outcome))

        def over(data: bytes) -> bool:
            return any(isinstance(event, Gone) for event in self._remote.receive(data))

        await self._wire.finish(over)


def _note(gone: Gone) -> None:
    if gone.fault:
        log.info("a streaming client broke the protocol", extra={"fault": gone.fault})


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    """End tasks and take their outcomes; a cancel of the caller takes effect afterwards."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
