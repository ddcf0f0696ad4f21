"""The rule for unit tests is enforced, not only written."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest


def test_a_unit_test_cannot_start_a_process() -> None:
    with pytest.raises(AssertionError, match=r"must not do this: subprocess\.Popen"):
        subprocess.run([sys.executable, "-c", ""], check=False)


def test_a_unit_test_cannot_connect() -> None:
    with (
        socket.socket() as connection,
        pytest.raises(AssertionError, match=r"must not do this: socket\.connect"),
    ):
        connection.connect(("127.0.0.1", 9))


def test_event_loops_of_tests_are_in_debug_mode() -> None:
    async def debug() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert asyncio.run(debug())
