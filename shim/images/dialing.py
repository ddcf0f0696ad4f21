"""A TCP connection to a host that has several addresses: the first that takes it wins (RFC 8305).

An address that swallows packets, as IPv6 does where it is only half set up, costs a quarter of a second and
not the whole time limit. Blocking, for threads; cancelled at any moment but that of the look-up.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any

from shim.images.cancellation import Cancellation

STAGGER = 0.25
"""Seconds that an address has before the next one is tried beside it: RFC 8305's Connection Attempt Delay."""

_Address = tuple[int, int, int, str, Any]  # as getaddrinfo gives them


def dial(host: str, port: int, seconds: float | None, cancellation: Cancellation) -> socket.socket:
    """A connected socket, blocking, with that time limit for whatever is done on it.

    Raises TimeoutError, OSError of the last address that refused, gaierror, Cancelled.
    """
    addresses = _interleaved(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
    attempts = _Attempts(addresses, cancellation)
    try:
        winner = attempts.first(None if seconds is None else time.monotonic() + seconds)
    finally:
        attempts.close()
    winner.settimeout(seconds)
    return winner


def _interleaved(found: Sequence[_Address]) -> list[_Address]:
    """The system's order (RFC 6724), but the families by turns, that of the first address first."""
    first = [address for address in found if address[0] == found[0][0]]
    others = [address for address in found if address[0] != found[0][0]]
    return [address for address in chain(*zip_longest(first, others)) if address is not None]


class _Attempts:
    """Connections that are being made; what has not won is closed by `close`."""

    def __init__(self, addresses: Iterable[_Address], cancellation: Cancellation) -> None:
        self._waiting = list(addresses)
        self._cancellation = cancellation
        self._selector = selectors.DefaultSelector()
        self._open: set[socket.socket] = set()
        self._failure = OSError(errno.EADDRNOTAVAIL, "the host has no address")

    def first(self, end: float | None) -> socket.socket:
        """The first that is connected before `end` (monotonic seconds)."""
        while self._waiting or self._open:
            self._cancellation.check()
            if self._waiting and (winner := self._begin(self._waiting.pop(0))) is not None:
                return winner
            if self._open and (winner := self._await(end)) is not None:
                return winner
        self._cancellation.check()
        raise self._failure

    def _begin(self, address: _Address) -> socket.socket | None:
        """Start an attempt; the socket if it is connected already, as to a place on this machine."""
        family, kind, protocol, _, where = address
        try:
            attempt = socket.socket(family, kind, protocol)
        except OSError as failure:  # no IPv6 on this machine
            self._failure = failure
            return None
        self._open.add(attempt)
        self._cancellation.watch(attempt)
        attempt.setblocking(False)
        attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        result = attempt.connect_ex(where)
        if result == 0:
            self._open.discard(attempt)
            return attempt
        if result not in (errno.EINPROGRESS, errno.EINTR):
            self._drop(attempt, result)
            return None
        self._selector.register(attempt, selectors.EVENT_WRITE)
        return None

    def _await(self, end: float | None) -> socket.socket | None:
        """Wait until an attempt is decided, or it is time for the next address or over."""
        now = time.monotonic()
        if end is not None and now >= end:
            raise TimeoutError
        limits = [end - now] if end is not None else []
        limits += [STAGGER] if self._waiting else []
        for key, _ in self._selector.select(min(limits) if limits else None):
            attempt = key.fileobj
            assert isinstance(attempt, socket.socket)
            self._selector.unregister(attempt)
            result = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if result == 0 and not self._cancellation.cancelled:
                self._open.discard(attempt)
                return attempt
            self._drop(attempt, result or errno.ECONNABORTED)
        return None

    def _drop(self, attempt: socket.socket, result: int) -> None:
        self._failure = OSError(result, os.strerror(result))
        self._open.discard(attempt)
        attempt.close()

    def close(self) -> None:
        self._selector.close()
        for attempt in self._open:
            attempt.close()
