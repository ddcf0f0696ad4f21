"""What is said of a socket that does not answer as it should."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.proto import admin_pb2
from cli.session import connect
from oci.errors import BadInput, Busy, Deadline


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[Path, socket.socket]]:
    """A socket on which connections are taken by nobody."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        yield path, listener


def test_of_a_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Busy, match=r"admin.sock does not exist: crispd is not running$"):
        connect(tmp_path / "admin.sock")


def test_of_a_socket_whose_daemon_was_killed(listening: tuple[Path, socket.socket]) -> None:
    path, listener = listening
    listener.close()
    with pytest.raises(Busy, match=r"admin.sock: nobody answers, crispd ended without removing it$"):
        connect(path)


def test_of_something_that_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file is not a socket$"):
        connect(tmp_path / "file")


def test_of_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"longer than"):
        connect(tmp_path / ("x" * 120))


def test_of_a_socket_whose_queue_is_full(listening: tuple[Path, socket.socket]) -> None:
    path, listener = listening
    listener.listen(0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
        first.connect(str(path))
        with pytest.raises(Busy, match=r"admin.sock: somebody listens there but takes no connection$"):
            connect(path)


def test_of_a_daemon_that_does_not_answer(listening: tuple[Path, socket.socket]) -> None:
    path, listener = listening
    listener.listen(8)
    with connect(path) as client, pytest.raises((Deadline, Busy), match=r"^Daemon: "):
        client.admin.Daemon(admin_pb2.DaemonRequest(), timeout=1)
