"""In which order a host's addresses are tried."""

from __future__ import annotations

import socket

from shim.images.dialing import _interleaved

SIX, FOUR = socket.AF_INET6, socket.AF_INET


def test_families_take_turns_and_the_system_says_which_begins() -> None:
    found = [(family, 1, 6, "", number) for family, number in ((SIX, 1), (SIX, 2), (SIX, 3), (FOUR, 4))]
    assert [address[4] for address in _interleaved(found)] == [1, 4, 2, 3]
    assert [address[4] for address in _interleaved(found[::-1])] == [4, 3, 2, 1]
    assert _interleaved(found[:1]) == found[:1]
