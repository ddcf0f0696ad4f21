"""CRI on the sockets that other runtimes are known by, and never in place of one that still serves."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.proto import cri_pb2
from tests.daemon import CALL_LIMIT, running

NAMES = ("cri-dockerd.sock", "containerd/containerd.sock", "crio/crio.sock")


@pytest.fixture
def run(prepared_machine: None) -> Iterator[Path]:
    """Stands for /run: a socket's path has at most 107 bytes, and pytest's own are long."""
    made = Path(tempfile.mkdtemp(prefix="run-"))
    yield made
    shutil.rmtree(made)


def test_every_alias_answers_and_goes_with_the_daemon(run: Path) -> None:
    own, *aliases = (run / name for name in ("crisp.sock", *NAMES))
    stale = aliases[1]
    stale.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:  # as a runtime leaves it that was killed
        left.bind(str(stale))
    with running(overrides={"": {"listen": [str(path) for path in (own, *aliases)]}}) as daemon:
        for path in (own, *aliases):
            told = daemon.runtime(path).Version(cri_pb2.VersionRequest(), timeout=CALL_LIMIT)
            assert told.runtime_name == "crisp", path
        assert daemon.stop() == 0
        assert not any(path.exists() for path in (own, *aliases))
        daemon.overrides = {}  # its last start, where the block's end looks for it


@pytest.mark.parametrize("name", NAMES)
def test_an_alias_that_another_runtime_serves_is_refused_and_left_to_it(run: Path, name: str) -> None:
    other = run / name
    other.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as serves:
        serves.bind(str(other))
        serves.listen()
        with (
            pytest.raises(RuntimeError, match=f"socket {other}: process [0-9]+ already serves it"),
            running(overrides={"": {"listen": [str(run / "crisp.sock"), str(other)]}}),
        ):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(other))
    assert not (run / "crisp.sock").exists()
