"""Exec, attach and port-forward at this terminal: standard streams, its size, raw mode, local ports.

Speaks WebSocket v5 for exec and attach, SPDY for ports, through `api/streaming/client.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from api.streaming.channels import WEBSOCKET, Channel, Failed, Outcome, Wanted, read_last_word
from api.streaming.client import ForwardClient, Forwarded, Opening, Said, WebSocketRemoteClient
from api.streaming.events import Gone, Reply
from cli.detach import DetachKeys
from oci.errors import BadInput, Busy, Internal

_VERSION = WEBSOCKET["v5.channel.k8s.io"]
_READ = 32 * 1024
_CONNECT_TIMEOUT = 10.0

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom both ends of a connection over TLS are.

    `server` is the only certificate that is taken, DER. `pair` is the certificate to show and its key, PEM,
    which may be one file; None shows none.
    """

    server: bytes
    pair: tuple[Path, Path] | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection behind its upgrade, and the first bytes that came after it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    first: bytes


async def _connect(url: str, protocols: tuple[str, ...], *, websocket: bool, trust: Trust) -> Connected:
    opening = Opening(url, protocols, websocket=websocket)
    named = f"streaming server {opening.host}:{opening.port}"
    context = _context(trust) if opening.tls else None
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            reader, writer = await asyncio.open_connection(opening.host, opening.port, ssl=context)
            if opening.tls and _shown(writer) != trust.server:  # before the URL is told
                writer.transport.abort()
                raise Internal(
                    f"{named}: shows another certificate than the daemon's;"
                    " if it was replaced just now, try again, else something else answers there"
                )
            writer.write(opening.request())
            answer = None
            while answer is None:
                data = await reader.read(_READ)
                if not data and opening.tls:
                    raise ConnectionResetError("closed the connection")
                answer = opening.receive(data)
    except ssl.SSLError as error:
        raise Internal(f"{named}: TLS: {error.reason or error}; {_turned_away(trust)}") from error
    except (OSError, TimeoutError) as error:
        # A server that turns a client away says so in TLS, but its reset can come first.
        away = opening.tls and isinstance(error, ConnectionResetError | BrokenPipeError)
        raise Busy(
            f"{named}: {str(error) or 'no answer'}{f'; {_turned_away(trust)}' if away else ''}"
        ) from error
    if answer.status != 101:
        writer.close()
        raise Internal(f"streaming server: refused with {answer.status}: {answer.text}")
    return Connected(reader, writer, opening.rest())


def _context(trust: Trust) -> ssl.SSLContext:
    """Takes every certificate: it is compared with what the daemon told over its own socket.

    Raises BadInput for a pair of ours that cannot be used.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if trust.pair is not None:
        certificate, key = trust.pair
        named = f"client certificate {certificate}" + (f", key {key}" if key != certificate else "")
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except ssl.SSLError as error:
            raise BadInput(
                f"{named}: no certificate and key that fit together: {error.reason or error}"
            ) from error
        except OSError as error:
            raise BadInput(f"{named}: {error.strerror or error}") from error
    return context


def _no_password() -> str:
    """In the place of OpenSSL's question at the terminal."""
    raise BadInput("client certificate: its key needs a password, which cannot be given here")


def _turned_away(trust: Trust) -> str:
    if trust.pair is None:
        return "with streaming.tls.client_ca only clients with a certificate are let in: --client-certificate"
    return f"{trust.pair[0]} may not be of the authority that streaming.tls.client_ca names"


def _shown(writer: asyncio.StreamWriter) -> bytes:
    """DER."""
    encrypted: ssl.SSLObject = writer.get_extra_info("ssl_object")
    return encrypted.getpeercert(binary_form=True) or b""


@contextlib.contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Every key goes to the container, within the block."""
    if not (wanted and sys.stdin.isatty()):
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


async def converse(url: str, wanted: Wanted, *, trust: Trust, detach: bytes = b"") -> Outcome | None:
    """One exec or attach to its end; None when the user has detached. Raises BadInput, Busy, Internal."""
    connected = await _connect(url, (_VERSION.name,), websocket=True, trust=trust)
    with raw_terminal(wanted.tty):
        session = _Session(connected, wanted, DetachKeys(detach))
        try:
            return await session.run()
        finally:
            connected.writer.transport.abort()


class _Session:
    def __init__(self, connected: Connected, wanted: Wanted, keys: DetachKeys) -> None:
        self._connected = connected
        self._wanted = wanted
        self._keys = keys
        self._core = WebSocketRemoteClient(wanted, _VERSION)
        self._loop = asyncio.get_running_loop()
        self._last_word = b""
        self._detached = asyncio.Event()
        self._room = threading.Semaphore(16)  # pieces of input on their way

    async def run(self) -> Outcome | None:
        writer = self._connected.writer
        if self._wanted.tty and sys.stdin.isatty():
            self._send_size()
            self._loop.add_signal_handler(signal.SIGWINCH, self._send_size)
        if self._wanted.stdin:
            # In a thread, for a file cannot be waited for; it may stay in read() when all is over.
            threading.Thread(target=self._read_input, daemon=True, name="stdin").start()
        listening = asyncio.ensure_future(self._listen())
        detached = asyncio.ensure_future(self._detached.wait())
        try:
            await asyncio.wait({listening, detached}, return_when=asyncio.FIRST_COMPLETED)
            if not listening.done():
                writer.write(self._core.close())
                return None
            return listening.result()
        finally:
            listening.cancel()
            detached.cancel()

    def _send_size(self) -> None:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(sys.stdin.fileno())
            self._connected.writer.write(self._core.resize(size.columns, size.lines))

    def _read_input(self) -> None:
        while True:
            try:
                data = os.read(sys.stdin.fileno(), _READ)
            except OSError:
                data = b""
            self._room.acquire()
            try:
                self._loop.call_soon_threadsafe(self._on_input, data)
            except RuntimeError:  # the session is over
                return
            if not data:
                return

    def _on_input(self, data: bytes) -> None:
        sent, detached = self._keys.receive(data) if self._wanted.tty else (data, False)
        if sent:
            self._connected.writer.write(self._core.input(sent))
        if detached:
            self._detached.set()
        if not data and not self._wanted.tty:
            self._connected.writer.write(self._core.end_input())
        draining = self._loop.create_task(self._drain())
        draining.add_done_callback(lambda _: self._room.release())

    async def _drain(self) -> None:
        with contextlib.suppress(OSError):
            await self._connected.writer.drain()

    async def _listen(self) -> Outcome:
        data = self._connected.first
        while True:
            for event in self._core.receive(data):
                if isinstance(event, Said):
                    self._show(event)
                elif isinstance(event, Reply):
                    self._connected.writer.write(event.data)
                elif isinstance(event, Gone):
                    said = read_last_word(self._last_word)
                    return Failed(message=event.fault) if event.fault else said
            try:
                data = await self._connected.reader.read(_READ)
            except OSError:
                data = b""
            if not data:
                return Failed(message="the connection to the daemon broke off")

    def _show(self, said: Said) -> None:
        if said.channel is Channel.ERROR:
            self._last_word += said.data
            return
        stream = sys.stderr if said.channel is Channel.STDERR else sys.stdout
        stream.buffer.write(said.data)
        stream.buffer.flush()


async def forward(url: str, ports: dict[int, int], *, trust: Trust, address: str, say: Notice) -> None:
    """Listen at local ports (local -> the pod's, 0 takes a free one) until cancelled or ended."""
    connected = await _connect(url, ForwardClient.protocols, websocket=False, trust=trust)
    try:
        await _Forwarding(connected, say).run(ports, address)
    finally:
        connected.writer.transport.abort()


class _Forwarding:
    def __init__(self, connected: Connected, say: Notice) -> None:
        self._connected = connected
        self._say = say
        self._core = ForwardClient()
        self._open: dict[int, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, ports: dict[int, int], address: str) -> None:
        servers = []
        try:
            for local, remote in ports.items():
                try:
                    server = await asyncio.start_server(self._accepting(remote), address, local)
                except OSError as error:
                    raise Busy(f"local port {local}: {error.strerror or error}") from error
                servers.append(server)
                self._say(f"{address}:{server.sockets[0].getsockname()[1]} -> {remote}")
            await self._listen()
        finally:
            for server in servers:
                server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepting(self, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(self._carry(port, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return accept

    async def _carry(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key, opened = self._core.connect(port)
        self._open[key] = writer
        await self._send(opened)
        try:
            while data := await reader.read(_READ):
                await self._send(self._core.send(key, data))
            await self._send(self._core.end(key))
        except OSError:
            await self._send(self._core.reset(key))
            self._drop(key)

    async def _send(self, data: bytes) -> None:
        self._connected.writer.write(data)
        with contextlib.suppress(OSError):
            await self._connected.writer.drain()

    async def _listen(self) -> None:
        data = self._connected.first
        while True:
            for event in self._core.receive(data):
                if isinstance(event, Gone):
                    raise Internal(f"the daemon ended the session {event.fault}".rstrip())
                await self._hear(event)
            try:
                data = await self._connected.reader.read(_READ)
            except OSError:
                data = b""
            if not data:
                raise Internal("the connection to the daemon broke off")

    async def _hear(self, event: Forwarded) -> None:
        if event.error:
            self._say(event.data.decode("utf-8", "replace"))
            self._drop(event.key)
            return
        writer = self._open.get(event.key)
        if writer is None:
            return
        if event.data:
            writer.write(event.data)
            with contextlib.suppress(OSError):
                await writer.drain()
        if event.ended:
            self._drop(event.key)

    def _drop(self, key: int) -> None:
        writer = self._open.pop(key, None)
        if writer is not None:
            writer.close()
