"""The log process: one loop over fifos and a socket. `python -I -S -c '…main(DIRECTORY)'`, see `keeper.py`.

DIRECTORY/socket takes the daemon's requests and attach clients, as packets of words separated by NUL:
`VERB N WORDS…`, answered by `N ok WORDS…` or `N error TEXT`; `attach` makes a connection one that carries
a container's output and input. What it is to read stands in DIRECTORY/outlets, so a new process goes on where
a killed one stopped. It ends when nobody is connected and nothing is left to read. DIRECTORY/events takes
what shims publish, also while there is no daemon.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import select

from shim.logger.outlet import INPUT_LIMIT, Client, Outlet
from shim.logger.publishers import Publishers
from shim.logger.spool import Spool

_PACKET = 1 << 16
_BACKLOG = 1024
_QUEUE_LIMIT = 4 << 20
_RETRY = 1.0  # seconds between attempts while a log cannot be written
_EDGES = select.EPOLLIN | select.EPOLLET


class _Peer(Client):
    """One connection: the daemon's, or an attach client's once it has said so."""

    def __init__(self, process: Process, connection: _socket.socket) -> None:
        self.process = process
        self.connection = connection
        self.outlet: Outlet | None = None
        self.queue: list[bytes] = []
        self.queued = 0
        self.dead = False
        self.leaving = False  # dead once its queue is empty
        self.paused = False

    def hand(self, packet: bytes) -> None:
        """Send a packet, now or when there is room."""
        self.process.send(self, packet)


class Process:
    """Everything that it has open."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.outlets: dict[bytes, Outlet] = {}
        self.streams: dict[int, tuple[Outlet, int]] = {}  # by fifo
        self.inputs: dict[int, Outlet] = {}  # stdin fifos that are full
        self.peers: dict[int, _Peer] = {}
        self.ready: dict[int, None] = {}
        self.drains: list[tuple[Outlet, _Peer, bytes]] = []
        self.fearing: list[tuple[Outlet, _Peer, bytes]] = []  # wait for the word that something was killed
        self.stuck: dict[bytes, Outlet] = {}
        self.poll = select.epoll()
        os.makedirs(f"{directory}/outlets", 0o700, exist_ok=True)
        self.spool = Spool(f"{directory}/spool")
        self._recover()
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC, 0)
        path = f"{directory}/socket"
        if os.path.lexists(path):
            os.unlink(path)
        self.listener.bind(path)
        self.listener.listen(_BACKLOG)
        self.listener.setblocking(False)
        self.poll.register(self.listener.fileno(), select.EPOLLIN)
        self.publishers = Publishers(directory, self.poll, self._was_killed)

    def run(self) -> None:
        """Serve until nobody is connected and nothing is left to read."""
        served = False
        while not served or self.peers or self.outlets:
            limit = 0 if self.ready else _RETRY if self.stuck else -1
            for descriptor, events in self.poll.poll(limit):
                if descriptor == self.listener.fileno():
                    served = True
                    self._accept()
                elif descriptor in self.streams:
                    self.ready[descriptor] = None
                elif descriptor in self.inputs:
                    self._feed(self.inputs[descriptor])
                elif descriptor in self.peers:
                    self._serve(self.peers[descriptor], events)
                elif self.publishers.serves(descriptor):
                    self.publishers.serve(descriptor)
            for outlet in list(self.stuck.values()):
                self._retry(outlet)
            for fifo in list(self.ready):
                self._pump(fifo)
            self._finish_drains()
            for descriptor, peer in list(self.peers.items()):
                if peer.dead:
                    self._forget(descriptor, peer)
        os.unlink(f"{self.directory}/socket")
        self.publishers.close()

    # ---- outlets

    def _recover(self) -> None:
        """Open what a killed process read, and bring into the logs what it had in hand."""
        for name in os.listdir(f"{self.directory}/outlets"):
            path = f"{self.directory}/outlets/{name}"
            with open(path, "rb") as file:
                words = file.read().split(b"\0")
            try:
                if name.startswith(".") or len(words) != 6:
                    raise OSError
                self._open(words)
            except OSError:  # torn, or its container's directory is gone
                os.unlink(path)
        held = [name for name in os.listdir(self.directory) if name.startswith("held.")]
        for name in [*held, "spool"]:
            spool = self.spool if name == "spool" else Spool(f"{self.directory}/{name}")
            found = spool.read()
            outlet = None if found is None else self.outlets.get(found[0])
            if outlet is not None and outlet.log >= 0:
                spool.replay(outlet.log)
            spool.done()
            if spool is not self.spool:
                spool.close()
                os.unlink(f"{self.directory}/{name}")

    def _open(self, words: list[bytes]) -> Outlet:
        outlet = Outlet(words, self.directory)
        self.outlets[outlet.id] = outlet
        for number, fifo in enumerate(outlet.fifos):
            if fifo >= 0:
                self.streams[fifo] = (outlet, number)
                self.poll.register(fifo, _EDGES)
                self.ready[fifo] = None
        return outlet

    def _keep(self, outlet: Outlet) -> None:
        path = f"{self.directory}/outlets/"
        temporary = f"{path}.{outlet.id.decode()}"
        with open(temporary, "wb") as file:
            file.write(b"\0".join(outlet.words))
        os.replace(temporary, path + outlet.id.decode())

    def _was_killed(self, container: bytes) -> None:
        """A shim says that the kernel killed something in a container for want of memory."""
        outlet = self.outlets.get(container)
        if outlet is not None and outlet.mark_oom():
            self._keep(outlet)
            for _, peer, number in [each for each in self.fearing if each[0] is outlet]:
                self._answer(peer, number, b"ok", b"killed")
            self.fearing = [each for each in self.fearing if each[0] is not outlet]

    def _pump(self, fifo: int) -> None:
        outlet, number = self.streams[fifo]
        try:
            if not outlet.pump(number, self.spool):
                self.ready.pop(fifo, None)
        except OSError:
            self.ready.pop(fifo, None)
            self.stuck[outlet.id] = outlet

    def _retry(self, outlet: Outlet) -> None:
        if outlet.retry():
            self.stuck.pop(outlet.id, None)
            self.ready.update((fifo, None) for fifo in outlet.fifos if fifo >= 0)

    def _finish_drains(self) -> None:
        for drain in list(self.drains):
            outlet, peer, number = drain
            busy = any(fifo in self.ready for fifo in outlet.fifos) or outlet.id in self.stuck
            if not busy and all(outlet.ended):
                self.drains.remove(drain)
                self._answer(peer, number, b"ok")
                self._dismiss(outlet)

    def _dismiss(self, outlet: Outlet) -> None:
        """The container has ended: its clients have the rest and then the end."""
        for peer in self.peers.values():
            if peer.outlet is outlet:
                peer.leaving = True
                peer.dead = peer.dead or not peer.queue

    def _remove(self, outlet: Outlet) -> None:
        """Read what is there now, and no more."""
        for number, fifo in enumerate(outlet.fifos):
            if fifo < 0:
                continue
            try:
                while outlet.pump(number, self.spool):
                    pass
            except OSError:
                pass
            self.poll.unregister(fifo)
            del self.streams[fifo]
            self.ready.pop(fifo, None)
        if self.inputs.pop(outlet.stdin, None) is not None:
            self.poll.unregister(outlet.stdin)
        self.stuck.pop(outlet.id, None)
        self.drains = [drain for drain in self.drains if drain[0] is not outlet]
        self.fearing = [each for each in self.fearing if each[0] is not outlet]
        self._dismiss(outlet)
        self._unlink(outlet)
        outlet.close()
        del self.outlets[outlet.id]

    def _unlink(self, outlet: Outlet) -> None:
        path = f"{self.directory}/outlets/{outlet.id.decode()}"
        if os.path.lexists(path):
            os.unlink(path)

    def _feed(self, outlet: Outlet) -> None:
        """Go on with input that waits; its senders are heard again when it is written."""
        if not outlet.feed():
            if outlet.stdin not in self.inputs:
                self.inputs[outlet.stdin] = outlet
                self.poll.register(outlet.stdin, select.EPOLLOUT)
            return
        if self.inputs.pop(outlet.stdin, None) is not None:
            self.poll.unregister(outlet.stdin)
        for peer in self.peers.values():
            if peer.outlet is outlet and peer.paused:
                peer.paused = False
                self._watch(peer)
        if outlet.closing and outlet.end_input():
            self._keep(outlet)
            for peer in list(self.peers.values()):
                if peer.outlet is None:
                    self.send(peer, b"\0".join((b"", b"input-ended", outlet.id)))

    # ---- connections

    def _accept(self) -> None:
        while True:
            try:
                descriptor, _ = self.listener._accept()  # type: ignore[attr-defined]
            except OSError:
                return
            peer = _Peer(self, _socket.socket(fileno=descriptor))
            peer.connection.setblocking(False)
            self.peers[descriptor] = peer
            self.poll.register(descriptor, select.EPOLLIN)

    def _watch(self, peer: _Peer) -> None:
        wanted = 0 if peer.paused else select.EPOLLIN
        self.poll.modify(peer.connection.fileno(), wanted | (select.EPOLLOUT if peer.queue else 0))

    def _forget(self, descriptor: int, peer: _Peer) -> None:
        self.poll.unregister(descriptor)
        del self.peers[descriptor]
        peer.connection.close()
        self.drains = [drain for drain in self.drains if drain[1] is not peer]
        self.fearing = [each for each in self.fearing if each[1] is not peer]
        outlet = peer.outlet
        if outlet is not None and outlet.id in self.outlets:
            outlet.clients = [other for other in outlet.clients if other is not peer]

    def _serve(self, peer: _Peer, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(peer)
        if peer.dead or not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        try:
            packet = peer.connection.recv(_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if peer.outlet is not None:
            self._input(peer, peer.outlet, packet)
        elif not packet:
            peer.dead = True
        else:
            self._request(peer, packet.split(b"\0"))

    def _input(self, peer: _Peer, outlet: Outlet, packet: bytes) -> None:
        if not packet:  # it sends no more, and may go on listening
            if outlet.once and not outlet.tty:
                outlet.closing = True
            peer.paused = True
            self._watch(peer)
            if _hung_up(peer.connection):
                peer.dead = True
        elif outlet.stdin >= 0:
            outlet.input += packet
            if len(outlet.input) >= INPUT_LIMIT:
                peer.paused = True
                self._watch(peer)
        self._feed(outlet)

    def _request(self, peer: _Peer, words: list[bytes]) -> None:
        verb, number, rest = words[0], words[1], words[2:]
        try:
            outlet = self.outlets.get(rest[0]) if rest else None
            if verb == b"add":
                if outlet is None:
                    outlet = self._open(rest)
                    self._keep(outlet)
                self._answer(peer, number, b"ok", b"closed" if outlet.input_closed else b"open")
            elif verb == b"attach":
                self._attach(peer, number, outlet)
            elif verb == b"ping":
                self._answer(peer, number, b"ok", b"%d" % os.getpid())
            elif outlet is None:
                self._answer(peer, number, b"absent")
            elif verb == b"drain":
                self.ready.update((fifo, None) for fifo in outlet.fifos if fifo >= 0)
                self.drains.append((outlet, peer, number))
            elif verb == b"oom":
                if rest[1:] == [b"wait"] and not outlet.oom:
                    self.fearing.append((outlet, peer, number))
                else:
                    self._answer(peer, number, b"ok", b"killed" if outlet.oom else b"no")
            elif verb == b"reopen":
                outlet.reopen()
                self._answer(peer, number, b"ok")
            elif verb == b"remove":
                self._remove(outlet)
                self._answer(peer, number, b"ok")
            else:
                self._answer(peer, number, b"error", b"no such verb")
        except OSError as error:
            where = os.fsencode(error.filename) if error.filename else b"log process"
            self._answer(peer, number, b"error", where + b": " + os.strerror(error.errno or 0).encode())

    def _attach(self, peer: _Peer, number: bytes, outlet: Outlet | None) -> None:
        if outlet is None:
            self._answer(peer, number, b"absent")
            return
        self._answer(peer, number, b"ok")
        peer.outlet = outlet
        outlet.clients.append(peer)

    def _answer(self, peer: _Peer, *words: bytes) -> None:
        self.send(peer, b"\0".join(words))

    def send(self, peer: _Peer, packet: bytes) -> None:
        """One packet; a peer that lets too much wait is cut off."""
        if peer.dead:
            return
        peer.queue.append(packet)
        peer.queued += len(packet)
        if len(peer.queue) == 1:
            self._flush(peer)
        if peer.queued > _QUEUE_LIMIT:
            peer.dead = True

    def _flush(self, peer: _Peer) -> None:
        before = bool(peer.queue)
        try:
            while peer.queue:
                peer.connection.send(peer.queue[0], _socket.MSG_NOSIGNAL)
                peer.queued -= len(peer.queue.pop(0))
        except BlockingIOError:
            pass
        except OSError:
            peer.dead = True
            return
        if peer.leaving and not peer.queue:
            peer.dead = True
        elif before:
            self._watch(peer)


def _hung_up(connection: _socket.socket) -> bool:
    """Whether the other side is gone, and has not only ended what it sends."""
    poll = select.poll()
    poll.register(connection.fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def main(directory: str) -> None:
    """Run until there is nothing to do. A byte on standard output says that the socket takes connections."""
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # one process a node; the next one waits for the end of this
    process = Process(directory)
    os.write(1, b"1")
    process.run()
