"""Connections to hosts of several addresses, some of which lead nowhere."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from shim.images.cancellation import Cancellation, Cancelled
from shim.images.dialing import STAGGER, dial
from tests.machine import PATIENCE


@contextlib.contextmanager
def listening(host: str = "127.0.0.1", *, backlog: int = 8) -> Iterator[tuple[str, int]]:
    with socket.socket() as server:
        server.bind((host, 0))
        server.listen(backlog)
        yield server.getsockname()


@contextlib.contextmanager
def swallowing() -> Iterator[tuple[str, int]]:
    """A place that does not answer: its queue is full, further packets are dropped."""
    with listening("127.0.0.3", backlog=0) as place, contextlib.ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(place)
        time.sleep(0.05)
        yield place


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What every host name is looked up as."""
    places: list[tuple[str, int]] = []

    def look_up(*_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return places


def test_an_address_that_swallows_packets_costs_a_moment(names: list[tuple[str, int]]) -> None:
    with swallowing() as lost, listening() as good:
        names += [lost, good]
        began = time.monotonic()
        with dial("r.example", 443, 20.0, Cancellation()) as connection:
            assert connection.getpeername() == good
            assert connection.gettimeout() == 20.0
        assert STAGGER <= time.monotonic() - began < 10 * PATIENCE


def test_an_address_that_refuses_costs_nothing(names: list[tuple[str, int]]) -> None:
    with listening() as gone:
        pass
    with listening() as good:
        names += [gone, good]
        with dial("r.example", 443, 20.0, Cancellation()) as connection:
            assert connection.getpeername() == good


def test_the_last_refusal_is_told_and_silence_ends_in_time(names: list[tuple[str, int]]) -> None:
    with listening() as gone:
        pass
    names.append(gone)
    with pytest.raises(ConnectionRefusedError):
        dial("r.example", 443, 20.0, Cancellation())
    with swallowing() as lost:
        names[:] = [lost]
        with pytest.raises(TimeoutError):
            dial("r.example", 443, 0.3, Cancellation())


def test_a_cancel_ends_all_attempts_at_once(names: list[tuple[str, int]]) -> None:
    with swallowing() as lost:
        names += [lost, lost, lost]
        cancellation = Cancellation()
        timer = threading.Timer(0.4, cancellation.cancel)
        timer.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            dial("r.example", 443, 60.0, cancellation)
        assert time.monotonic() - began < 2 * PATIENCE
        timer.join()
