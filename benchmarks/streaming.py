"""Exec, attach and port-forward over SPDY/3.1, which both sides speak: latencies, and a lot of bytes.

While the bytes flow another program asks for Status: what a stream costs everybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from api.client import Client
from api.proto import cri_pb2
from api.streaming.channels import SPDY, Channel, Ended, Wanted, read_last_word
from api.streaming.client import ForwardClient, Forwarded, Opening, Said, SpdyRemoteClient
from benchmarks import lister, work
from benchmarks.report import Row
from benchmarks.run import Run, Samples
from benchmarks.sides import MARK, Side
from benchmarks.work import Pod
from shim.kernel.namespace import within_network

_VERSION = SPDY["v4.channel.k8s.io"]
_READ = 1 << 18
_LIMIT = 120.0  # seconds that a read may take
_SOON = 1
_HELLO, _FLOOD = 7001, 7002  # ports in the pod
_OUT = Wanted(stdin=False, stdout=True, stderr=True, tty=False)
_BOTH = Wanted(stdin=True, stdout=True, stderr=True, tty=False)


@dataclass(slots=True)
class _Place:
    """A side's pod, whose container says its input again, and with servers at its loopback."""

    side: Side
    client: Client
    pod: Pod


def streaming(run: Run) -> list[Row]:
    """Latencies of each operation, then throughput with Status asked for meanwhile."""
    samples: dict[str, Samples] = defaultdict(lambda: defaultdict(list))
    size = run.counts.volume << 20
    with ExitStack() as stack:
        places = {s.name: stack.enter_context(_pod(run, s, size)) for s in run.sides}
        for turn in run.turns(run.counts.streams):
            for place in (places[side.name] for side in turn):
                for name, call in (("exec", _exec_true), ("attach", _attach_byte), ("forward", _first_byte)):
                    samples[name][place.side.name].append(call(place))
        for turn in run.turns(run.counts.floods):
            for place in (places[side.name] for side in turn):
                for name, flood in (("exec out", _exec_flood), ("forward out", _forward_flood)):
                    taken: list[float] = []
                    asked = lister.listen(place.side, partial(_timed, taken, flood, place, size))
                    samples[name][place.side.name].append(run.counts.volume / taken[0])
                    samples[f"{name}, Status"][place.side.name] += asked["Status"]
    volume = f"{run.counts.volume} MiB"
    status = {"unit": "ms", "limit": 20, "quantile": 0.99}
    return [
        Row(name="exec true over SPDY, call to last word", unit="ms", values=samples["exec"], most=1.0),
        Row(name="a byte through attach and back", unit="ms", values=samples["attach"], most=1.0),
        Row(name="port-forward, call to first byte", unit="ms", values=samples["forward"], most=1.0),
        Row(name=f"{volume} out of an exec", unit="MiB/s", values=samples["exec out"], least=0.5),
        Row(name="· Status during an exec's (p99)", values=samples["exec out, Status"], **status),
        Row(name=f"{volume} out of a port-forward", unit="MiB/s", values=samples["forward out"], least=0.5),
        Row(name="· Status during a port-forward's (p99)", values=samples["forward out, Status"], **status),
    ]


def _timed(taken: list[float], flood: Callable[[_Place, int], None], place: _Place, size: int) -> None:
    began = perf_counter()
    flood(place, size)
    taken.append(perf_counter() - began)


@contextmanager
def _pod(run: Run, side: Side, size: int) -> Iterator[_Place]:
    client = run.clients[side.name]
    (pod,) = run.pods(1)
    config = work.container(pod)
    config.stdin = True
    config.command[:] = ["cat"]
    config.linux.ClearField("resources")  # half a processor would be the limit of everything
    request = cri_pb2.RunPodSandboxRequest(config=pod.config)
    pod.sandbox = client.runtime.RunPodSandbox(request).pod_sandbox_id
    pod.container = client.runtime.CreateContainer(
        cri_pb2.CreateContainerRequest(pod_sandbox_id=pod.sandbox, config=config, sandbox_config=pod.config)
    ).container_id
    client.runtime.StartContainer(cri_pb2.StartContainerRequest(container_id=pod.container))
    network = f"/proc/{_process_of(pod.container)}/ns/net"
    with tempfile.TemporaryFile() as zeros, ExitStack() as stack:
        zeros.truncate(size)
        stack.enter_context(_server(network, _HELLO, lambda made: made.sendall(b"!")))
        stack.enter_context(_server(network, _FLOOD, partial(_send_file, zeros.fileno(), size)))
        yield _Place(side, client, pod)
    work.end(client, pod, grace=_SOON)


def _process_of(container: str) -> int:
    """The container's first process: in its cgroup and with the workload's environment.

    Its runtime has that only from the moment it executes the program, which may be after the start's answer.
    """
    deadline = perf_counter() + _LIMIT
    while perf_counter() < deadline:
        for each in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    each.name.isdecimal()
                    and container in (each / "cgroup").read_text()
                    and MARK.encode() in (each / "environ").read_bytes().split(b"\0")
                ):
                    return int(each.name)
    raise LookupError(f"no process of container {container}")


@contextmanager
def _server(network: str, port: int, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    listener = asyncio.run(
        within_network(network, lambda: socket.create_server(("127.0.0.1", port), backlog=64))
    )

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as made:
                    serve(made)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def _send_file(source: int, size: int, made: socket.socket) -> None:
    sent = 0
    while sent < size:
        sent += os.sendfile(made.fileno(), source, sent, size - sent)


@contextmanager
def _opened(url: str, protocol: str) -> Iterator[tuple[socket.socket, bytes]]:
    opening = Opening(url, (protocol,), websocket=False)
    with socket.create_connection((opening.host, opening.port), timeout=_LIMIT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(opening.request())
        answer = None
        while answer is None:
            answer = opening.receive(connection.recv(_READ))
        assert answer.status == 101, answer
        yield connection, opening.rest()


def _run_command(place: _Place, *command: str) -> int:
    """Exec to the last word; how many bytes it said."""
    request = cri_pb2.ExecRequest(container_id=place.pod.container, cmd=command, stdout=True, stderr=True)
    url = place.client.runtime.Exec(request).url
    core = SpdyRemoteClient(_OUT, _VERSION)
    count, word = 0, b""
    with _opened(url, _VERSION.name) as (connection, rest):
        connection.sendall(core.start())
        data, ended = rest, False
        while not ended:
            for event in core.receive(data):
                if isinstance(event, Said) and event.channel is Channel.STDOUT:
                    count += len(event.data)
                elif isinstance(event, Said) and event.channel is Channel.ERROR:
                    word += event.data
                    ended = event.ended
            if not ended:  # containerd ends the connection instead of the stream
                data = connection.recv(_READ)
                ended = not data
    assert read_last_word(word) == Ended(code=0), f"{place.side.name}: {word!r}"
    return count


def _exec_true(place: _Place) -> float:
    began = perf_counter()
    _run_command(place, "/bin/true")
    return (perf_counter() - began) * 1000


def _exec_flood(place: _Place, size: int) -> None:
    command = ("/bin/busybox", "dd", "if=/dev/zero", "bs=1M", f"count={size >> 20}", "status=none")
    said = _run_command(place, *command)
    assert said == size, said


def _attach_byte(place: _Place) -> float:
    request = cri_pb2.AttachRequest(container_id=place.pod.container, stdin=True, stdout=True, stderr=True)
    url = place.client.runtime.Attach(request).url
    core = SpdyRemoteClient(_BOTH, _VERSION)
    with _opened(url, _VERSION.name) as (connection, data):
        connection.sendall(core.start() + core.input(b"0"))
        _until_said(connection, core, data)  # it is attached
        began = perf_counter()
        connection.sendall(core.input(b"1"))
        _until_said(connection, core, b"")
        return (perf_counter() - began) * 1000


def _until_said(connection: socket.socket, core: SpdyRemoteClient, data: bytes) -> None:
    while not any(isinstance(event, Said) and event.data for event in core.receive(data)):
        data = connection.recv(_READ)
        assert data, "closed before its word"


@contextmanager
def _forwarded(place: _Place, port: int) -> Iterator[Iterator[bytes]]:
    """The bytes of one forwarded connection, as they come."""
    request = cri_pb2.PortForwardRequest(pod_sandbox_id=place.pod.sandbox, port=[port])
    url = place.client.runtime.PortForward(request).url
    core = ForwardClient()
    with _opened(url, core.protocols[0]) as (connection, rest):

        def pieces(data: bytes) -> Iterator[bytes]:
            connection.sendall(core.connect(port)[1])
            while True:
                for event in core.receive(data):
                    assert isinstance(event, Forwarded) and not event.error, event
                    if event.data:
                        yield event.data
                data = connection.recv(_READ)
                assert data, "closed before its end"

        yield pieces(rest)


def _first_byte(place: _Place) -> float:
    began = perf_counter()
    with _forwarded(place, _HELLO) as pieces:
        assert next(pieces) == b"!"
        return (perf_counter() - began) * 1000


def _forward_flood(place: _Place, size: int) -> None:
    left = size
    with _forwarded(place, _FLOOD) as pieces:
        while left:
            left -= len(next(pieces))
