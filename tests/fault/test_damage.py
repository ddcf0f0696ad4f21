"""The daemon dies beside 20 busy pods, its database is damaged page by page, record by record: all is kept.

Each damage is done to the same copy of the database, checkpointed so that the pages count, and each time a
new life of the daemon must show the same pods, containers, addresses and processes.
"""

from __future__ import annotations

import itertools
import sqlite3
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests import figures
from tests.daemon import Daemon
from tests.fault import cri

PODS = 20
_NAME = "state.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    what: str
    content: bytes


@pytest.mark.timeout(1500)
def test_no_damaged_page_or_record_of_the_database_loses_a_pod_or_a_log_line(
    daemon: Daemon, stride: int
) -> None:
    cri.pull(daemon)
    lives = [cri.Life(daemon=daemon, name=f"busy{n}", script=cri.NUMBERS) for n in range(PODS)]
    for life in lives:
        life.start()
    before = [life.seen() for life in lives]
    assert {(seen["pod state"], seen["container state"]) for seen in before} == {
        ("SANDBOX_READY", "CONTAINER_RUNNING")
    }
    daemon.kill()
    path = daemon.state_dir / _NAME
    checkpoint(path)
    whole = path.read_bytes()
    tried: dict[str, int] = {}
    starts: list[float] = []
    damages = (pages(whole, stride), records(whole, daemon, stride), copies(whole, daemon, stride))
    for damage in itertools.chain(*damages):
        restore(daemon, damage.content)
        daemon.start()
        starts.append(daemon.ready_after)
        try:
            now = [life.seen() for life in lives]
        except grpc.RpcError as error:
            raise AssertionError(f"{damage.what}: {error}\n{daemon.log[-20000:]}") from error
        finally:
            daemon.kill()
        assert now == before, damage.what
        tried[damage.what.split(" ")[0]] = tried.get(damage.what.split(" ")[0], 0) + 1
    restore(daemon, whole)
    daemon.start()
    for life in lives:
        life.ask("StopContainer")
    logs = [cri.missing(life.log) for life in lives]
    assert [wrong for _, wrong in logs if wrong] == []
    lines = sum(count for count, _ in logs)
    words = ", ".join(f"{what} {number}" for what, number in tried.items())
    figures.line(
        "sweeps",
        f"damage beside {PODS} pods: {words} (stride {stride}), every pod the same each time;"
        f" {lines} log lines, none missing; ready after"
        f" {statistics.median(starts):.2f} s, at most {max(starts):.2f} s",
    )
    assert min(tried.values()) > 0


def checkpoint(path: Path) -> None:
    """Bring every page from the write-ahead log into the file; damage there would not be read otherwise."""
    connection = sqlite3.connect(path)
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0
    finally:
        connection.close()


def restore(daemon: Daemon, content: bytes) -> None:
    """The database as it was or is to be; what the last life set aside goes."""
    for left in daemon.state_dir.glob(f"{_NAME}*"):
        left.unlink()
    (daemon.state_dir / _NAME).write_bytes(content)


def pages(whole: bytes, stride: int) -> Iterator[Damage]:
    """Every page overwritten with nonsense."""
    size = int.from_bytes(whole[16:18], "big") or 65536  # sqlite.org/fileformat2.html, 1.3
    size = 65536 if size == 1 else size
    for number in range(0, len(whole) // size, stride):
        nonsense = bytes((number + index * 7) % 251 for index in range(size))
        content = whole[: number * size] + nonsense + whole[(number + 1) * size :]
        yield Damage(what=f"page {number + 1}", content=content)


def records(whole: bytes, daemon: Daemon, stride: int) -> Iterator[Damage]:
    """One byte in every record changed in the file itself, where no checksum of SQLite's sees it."""
    restore(daemon, whole)
    connection = sqlite3.connect(daemon.state_dir / _NAME)
    try:
        rows = connection.execute("SELECT kind, id, body FROM records ORDER BY kind, id").fetchall()
    finally:
        connection.close()
    for index, (kind, id_, body) in enumerate(rows):
        if index % stride:
            continue
        # The start of a record lies in one piece in its page.
        at = whole.index(bytes(body[:64]))
        content = bytearray(whole)
        content[at + 8 + index % 40] ^= 1 << index % 7
        yield Damage(what=f"record {kind} {id_}", content=bytes(content))


def copies(whole: bytes, daemon: Daemon, stride: int) -> Iterator[Damage]:
    """One byte changed in every record's copy beside its object, the database whole."""
    found = sorted(daemon.state_dir.glob("pods/*/record.json")) + sorted(
        daemon.state_dir.glob("containers/*/record.json")
    )
    for index, path in enumerate(found):
        if index % stride:
            continue
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        yield Damage(what=f"copy {path}", content=whole)
