"""The bytes of an inotify descriptor as events."""

from __future__ import annotations

import struct

from shim.kernel.inotify import Mask, parse_events


def event(watch: int, mask: Mask, name: bytes) -> bytes:
    padded = name.ljust((len(name) // 16 + 1) * 16, b"\0") if name else b""
    return struct.pack("iIII", watch, mask, 0, len(padded)) + padded


def test_events_with_and_without_names_are_told_apart() -> None:
    data = (
        event(1, Mask.CREATE, b"10-net.conflist")
        + event(2, Mask.DELETE_SELF, b"")
        + event(-1, Mask.Q_OVERFLOW, b"")
        + event(1, Mask.MOVED_TO, b"sixteen-letters!")
    )
    assert parse_events(data) == [
        (1, Mask.CREATE, "10-net.conflist"),
        (2, Mask.DELETE_SELF, ""),
        (-1, Mask.Q_OVERFLOW, ""),
        (1, Mask.MOVED_TO, "sixteen-letters!"),
    ]


def test_a_cut_event_at_the_end_is_left_out() -> None:
    whole = event(1, Mask.CREATE, b"name")
    assert parse_events(whole + whole[:10]) == [(1, Mask.CREATE, "name")]
