"""The state store on a real disk: durable, readable, rebuilt from copies when it is damaged."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from oci.errors import Full, Internal
from oci.image import ImageConfig
from oci.workload import (
    ContainerId,
    ContainerMetadata,
    ContainerSpec,
    ImageId,
    ImageSpec,
    PodId,
    PodMetadata,
    PodSpec,
)
from shim.records import ContainerRecord, ContainerState, ImageRecord, LayerRecord, PodRecord, PodState
from shim.state.database import Database
from shim.state.mirror import Mirror, Row
from shim.state.store import Change, Record, Store
from tests.kubelet.disk import mounted, read_only, writable


def pod(number: int, *, state: PodState = PodState.READY) -> PodRecord:
    return PodRecord(
        id=PodId(f"{number:064x}"),
        realm="kubelet",
        spec=PodSpec(
            metadata=PodMetadata(name=f"pod-{number}", namespace="default", uid=str(number)),
            annotations={"filler": "x" * 700},
        ),
        state=state,
        created_at=1,
        handler="runc",
    )


def container(number: int) -> ContainerRecord:
    return ContainerRecord(
        id=ContainerId(f"c{number:063x}"),
        pod_id=PodId(f"{number:064x}"),
        realm="kubelet",
        spec=ContainerSpec(metadata=ContainerMetadata(name="main"), image=ImageSpec(image="busybox")),
        state=ContainerState.RUNNING,
        created_at=2,
        handler="runc",
        image_id=ImageId("sha256:" + "1" * 64),
    )


def image() -> ImageRecord:
    return ImageRecord(
        id=ImageId("sha256:" + "1" * 64),
        tags=("docker.io/library/busybox:latest",),
        digests=(),
        manifest_digest="sha256:" + "2" * 64,
        config=ImageConfig(cmd=("sh",)),
        layers=("sha256:" + "3" * 64,),
        size=5,
    )


RECORDS: list[Record] = [
    *(pod(n) for n in range(20)),
    *(container(n) for n in range(20)),
    image(),
    LayerRecord(diff_id="sha256:" + "3" * 64, form="erofs", size=9, inodes=3, created_at=1),
]


def row_key(record: Record) -> bytes:
    """How a row begins in the file: kind and id stand side by side there."""
    match record:
        case PodRecord():
            return f"pod{record.id}".encode()
        case ContainerRecord():
            return f"container{record.id}".encode()
        case ImageRecord():
            return f"image{record.id}".encode()
        case LayerRecord():
            return f"layer{record.diff_id}".encode()


def contents(store: Store) -> list[Record]:
    kinds = (store.pods, store.containers, store.images, store.layers)
    return [record for kind in kinds for record in sorted(kind.values(), key=repr)]


async def fill(directory: Path) -> None:
    store = await Store.open(directory)
    await asyncio.gather(*(store.put(record) for record in RECORDS))
    await store.close()


async def read(directory: Path) -> tuple[list[Record], list[str]]:
    store = await Store.open(directory)
    found, findings = contents(store), store.findings
    await store.close()
    return found, findings


EXPECTED = sorted(RECORDS[:20], key=repr) + sorted(RECORDS[20:40], key=repr) + RECORDS[40:]


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    assert asyncio.run(read(tmp_path)) == (EXPECTED, [])


def test_what_was_deleted_is_gone_with_its_copy(tmp_path: Path) -> None:
    async def main() -> None:
        store = await Store.open(tmp_path)
        await store.put(pod(1))
        await store.put(pod(2))
        await store.delete(pod(1))
        await store.close()

    asyncio.run(main())
    assert asyncio.run(read(tmp_path)) == ([pod(2)], [])
    assert [p.name for p in (tmp_path / "pods").iterdir()] == [pod(2).id]


def test_a_copy_that_comes_back_with_the_power_is_not_believed(tmp_path: Path) -> None:
    """Its removal is not flushed; the commit that forgets the record is."""
    copies = [tmp_path / "pods" / pod(number).id / "record.json" for number in (1, 2)]

    async def main() -> list[bytes]:
        store = await Store.open(tmp_path)
        await store.put(pod(1))
        await store.put(pod(2))
        before = [copy.read_bytes() for copy in copies]
        await store.delete(pod(1))
        await store.delete(pod(2))
        await store.put(pod(2))
        await store.close()
        return before

    stale = asyncio.run(main())
    for copy, content in zip(copies, stale, strict=True):
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(content)
    assert asyncio.run(read(tmp_path)) == ([pod(2)], [])
    assert not copies[0].exists()
    assert asyncio.run(read(tmp_path)) == ([pod(2)], [])


def remembered(directory: Path) -> set[str]:
    """Ids of what was forgotten and is remembered as that."""
    connection = sqlite3.connect(directory / "state.db")
    found = {id_ for (id_,) in connection.execute("SELECT id FROM deletions")}
    connection.close()
    return found


def test_what_comes_again_after_a_restart_is_younger_than_its_removal_and_ends_the_memory_of_it(
    tmp_path: Path,
) -> None:
    async def life(*, put: int, delete: bool) -> int:
        store = await Store.open(tmp_path)
        await store.put(pod(put))
        if delete:
            await store.delete(pod(put))
        await store.close()
        return store.seq

    assert asyncio.run(life(put=1, delete=True)) == 2
    assert remembered(tmp_path) == {pod(1).id}
    assert asyncio.run(life(put=2, delete=False)) == 3
    assert asyncio.run(life(put=1, delete=False)) == 4
    assert remembered(tmp_path) == set()
    assert asyncio.run(read(tmp_path)) == ([pod(1), pod(2)], [])


def test_a_copy_younger_than_the_memory_of_a_removal_is_not_taken_for_what_came_back(tmp_path: Path) -> None:
    """Its row is lost: the copy is all there is."""

    async def life(*changes: tuple[str, int]) -> None:
        store = await Store.open(tmp_path)
        for verb, number in changes:
            await getattr(store, verb)(pod(number))
        await store.close()

    asyncio.run(life(*(("put", 1) for _ in range(5)), ("delete", 1)))
    asyncio.run(life(("put", 1)))
    connection = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    connection.execute("INSERT OR REPLACE INTO deletions VALUES ('pod', ?, 6)", (pod(1).id,))
    connection.execute("DELETE FROM records")
    connection.close()
    assert asyncio.run(read(tmp_path))[0] == [pod(1)]


@pytest.mark.parametrize("full", [False, True])
def test_deletions_are_forgotten_in_time_and_a_full_disk_costs_neither_a_start_nor_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    tried = threading.Event()
    forget = Database.forget_deletions

    def forgetting(database: Database, *seq: int) -> None:
        tried.set()
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        forget(database, *seq)

    monkeypatch.setattr(Database, "forget_deletions", forgetting)

    async def fill_up() -> None:
        store = await Store.open(tmp_path)
        await store.close()
        connection = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        connection.execute("BEGIN")
        many = [("pod", f"{number:064x}", number) for number in range(1, 1200)]
        connection.executemany("INSERT INTO deletions VALUES (?, ?, ?)", many)
        connection.execute("COMMIT")
        connection.close()

    async def life() -> int:
        store = await Store.open(tmp_path)
        writes = 0
        while not tried.is_set():  # the flush has a thread of its own
            await store.put(pod(1))
            writes += 1
        await store.delete(pod(1))
        await store.close()
        return writes

    asyncio.run(fill_up())
    assert asyncio.run(life()) > 1
    left = remembered(tmp_path)
    assert (len(left) == 1199) if full else (left == {pod(1).id})
    assert asyncio.run(read(tmp_path)) == ([], [])


def test_changes_are_told_in_the_order_of_their_commits_with_before_and_after(tmp_path: Path) -> None:
    async def main() -> list[Change]:
        store = await Store.open(tmp_path)
        seen: list[Change] = []
        stop = store.subscribe(seen.append)
        await store.put(pod(1, state=PodState.CREATING))
        await store.put(pod(1))
        await store.delete(pod(1))
        stop()
        await store.put(pod(2))
        await store.close()
        return seen

    assert asyncio.run(main()) == [
        Change(1, None, pod(1, state=PodState.CREATING)),
        Change(2, pod(1, state=PodState.CREATING), pod(1)),
        Change(3, pod(1), None),
    ]


class Disk:
    """Commits wait from `hold` to `release`; with `fail` they come to nothing then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._go = threading.Event()
        self._go.set()
        self.fails = False
        write = Database.write

        def held(database: Database, rows: Sequence[Row], deletions: Sequence[tuple[str, str]]) -> None:
            assert self._go.wait(20)
            if self.fails:
                raise OSError(errno.ENOSPC, "no space left on device")
            write(database, rows, deletions)

        monkeypatch.setattr(Database, "write", held)

    def hold(self) -> None:
        self._go.clear()

    def release(self) -> None:
        self._go.set()


def ended(number: int) -> ContainerRecord:
    return replace(container(number), state=ContainerState.EXITED, exit_code=3)


def test_what_is_proven_is_seen_before_its_commit_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)

    async def main() -> list[Change]:
        store = await Store.open(tmp_path)
        await store.put(container(1))
        seen: list[Change] = []
        store.subscribe(seen.append)
        disk.hold()
        other = asyncio.create_task(store.put(pod(1)))
        await asyncio.sleep(0)
        writing = asyncio.create_task(store.put(ended(1), proven=True))
        await asyncio.sleep(0)
        assert store.containers[container(1).id] == ended(1)
        assert seen == [Change(3, container(1), ended(1), durable=False)]
        assert not writing.done()
        disk.release()
        await asyncio.gather(writing, other)
        await store.close()
        return seen

    # The pod's was numbered earlier and is told later: the numbers grow all the same.
    assert asyncio.run(main()) == [Change(3, container(1), ended(1), durable=False), Change(4, None, pod(1))]
    assert asyncio.run(read(tmp_path)) == ([pod(1), ended(1)], [])


def test_what_is_proven_stays_seen_when_it_cannot_be_written_and_can_be_put_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)

    async def main() -> int:
        store = await Store.open(tmp_path)
        await store.put(container(1))
        seen: list[Change] = []
        store.subscribe(seen.append)
        disk.fails = True
        with pytest.raises(Full):
            await store.put(ended(1), proven=True)
        again = store.containers[container(1).id]
        assert again == ended(1)
        disk.fails = False
        await store.put(again, proven=True)
        await store.close()
        return len(seen)

    assert asyncio.run(main()) == 1
    assert asyncio.run(read(tmp_path)) == ([ended(1)], [])


def test_what_is_proven_waits_for_a_write_of_the_same_record_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)

    async def main() -> list[tuple[int, bool]]:
        store = await Store.open(tmp_path)
        seen: list[Change] = []
        store.subscribe(seen.append)
        disk.hold()
        first = asyncio.create_task(store.put(container(1)))
        await asyncio.sleep(0)
        second = asyncio.create_task(store.put(ended(1), proven=True))
        await asyncio.sleep(0)
        assert seen == []
        disk.release()
        await asyncio.gather(first, second)
        assert store.containers[container(1).id] == ended(1)
        await store.close()
        return [(change.seq, change.durable) for change in seen]

    assert asyncio.run(main()) == [(1, True), (2, True)]


def test_waiting_changes_share_a_transaction(tmp_path: Path) -> None:
    async def main() -> int:
        commits: list[int] = []
        store = await Store.open(tmp_path, on_commit=commits.append)
        await asyncio.gather(*(store.put(pod(n)) for n in range(200)))
        await store.close()
        return len(commits)

    assert asyncio.run(main()) < 100


def test_records_that_are_put_together_come_in_one_commit_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Database.write

    def full(database: Database, rows: list[Row], gone: list[tuple[str, str, int]]) -> None:
        if any(row.kind == "image" for row in rows):
            raise sqlite3.OperationalError("database or disk is full")
        write(database, rows, gone)

    async def main() -> None:
        commits: list[int] = []
        store = await Store.open(tmp_path, on_commit=commits.append)
        monkeypatch.setattr(Database, "write", full)
        with pytest.raises(Full):
            await store.put(pod(1), image())
        assert (contents(store), commits) == ([], [])
        monkeypatch.setattr(Database, "write", write)
        await store.put(pod(1), image())
        assert (contents(store), commits) == ([pod(1), image()], [1])
        await store.close()

    asyncio.run(main())
    assert asyncio.run(read(tmp_path)) == ([pod(1), image()], [])


def test_a_cancelled_writer_changes_nothing_about_the_write(tmp_path: Path) -> None:
    async def main() -> list[Record]:
        store = await Store.open(tmp_path)
        writer = asyncio.create_task(store.put(pod(1)))
        await asyncio.sleep(0)
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
        await store.put(pod(2))
        found = contents(store)
        await store.close()
        return found

    assert asyncio.run(main()) == [pod(1), pod(2)]


def test_every_page_overwritten_one_copy_after_the_other_loses_nothing(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    path = tmp_path / "state.db"
    whole = path.read_bytes()
    pages = len(whole) // 4096
    assert pages > 5
    for page in range(pages):
        for filler in (b"\x00", b"\xa5"):
            path.write_bytes(whole[: page * 4096] + filler * 4096 + whole[(page + 1) * 4096 :])
            assert asyncio.run(read(tmp_path))[0] == EXPECTED, f"page {page} filled with {filler!r}"


def test_a_flipped_byte_in_any_record_is_found_and_repaired(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    path = tmp_path / "state.db"
    for record in RECORDS:
        key = row_key(record)
        data = bytearray(path.read_bytes())
        place = data.index(key) + len(key) + 12
        data[place] ^= 0x20
        path.write_bytes(data)
        found, findings = asyncio.run(read(tmp_path))
        assert found == EXPECTED
        assert findings, f"the flip in {key!r} at {place} was not noticed"
        for left in tmp_path.glob("state.db.damaged-*"):
            left.unlink()


def test_a_database_that_is_gone_or_is_none_is_rebuilt_from_the_copies(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    (tmp_path / "state.db").write_bytes(b"this is no database, not at all" * 200)
    found, findings = asyncio.run(read(tmp_path))
    assert found == EXPECTED
    assert "file is not a database" in findings[0]
    assert len(list(tmp_path.glob("state.db.damaged-*"))) == 1
    (tmp_path / "state.db").unlink()
    assert asyncio.run(read(tmp_path))[0] == EXPECTED


def test_a_damaged_copy_beside_a_whole_database_is_reported_and_healed_by_the_next_write(
    tmp_path: Path,
) -> None:
    asyncio.run(fill(tmp_path))
    copy = tmp_path / "pods" / pod(3).id / "record.json"
    copy.write_bytes(copy.read_bytes()[:40])
    assert asyncio.run(read(tmp_path)) == (EXPECTED, [f"{copy}: record copy is damaged"])
    asyncio.run(fill(tmp_path))
    assert asyncio.run(read(tmp_path)) == (EXPECTED, [])


def test_a_record_damaged_in_both_places_is_the_only_one_lost(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    lost = pod(7)
    (tmp_path / "pods" / lost.id / "record.json").write_bytes(b"")
    path = tmp_path / "state.db"
    data = bytearray(path.read_bytes())
    data[data.index(row_key(lost)) + 100] ^= 1
    path.write_bytes(data)
    found, findings = asyncio.run(read(tmp_path))
    assert found == [record for record in EXPECTED if record != lost]
    assert any(lost.id in finding for finding in findings)


def test_members_and_kinds_of_a_newer_release_are_kept(tmp_path: Path) -> None:
    async def write_newer() -> None:
        store = await Store.open(tmp_path)
        await store.put(pod(1))
        await store.close()
        copy = json.loads((tmp_path / "pods" / pod(1).id / "record.json").read_bytes())
        body = json.loads(copy["body"]) | {"colour": "blue"}

        Mirror(tmp_path).write(Row("pod", pod(1).id, 50, json.dumps(body).encode()))
        Mirror(tmp_path).write(Row("device", "d1", 51, b'{"any": "thing"}'))

    async def rewrite() -> list[str]:
        store = await Store.open(tmp_path)
        assert contents(store) == [pod(1)]
        await store.put(pod(1, state=PodState.NOTREADY))
        await store.close()
        return store.findings

    asyncio.run(write_newer())
    assert any("'device' is not known here, it is kept" in finding for finding in asyncio.run(rewrite()))
    with sqlite3.connect(tmp_path / "state.db") as connection:
        rows = {kind: json.loads(body) for kind, body in connection.execute("SELECT kind, body FROM records")}
    connection.close()
    assert rows["pod"]["colour"] == "blue"
    assert rows["pod"]["state"] == "notready"
    assert rows["device"] == {"any": "thing"}


def test_a_closed_store_refuses_to_write(tmp_path: Path) -> None:
    async def main() -> None:
        store = await Store.open(tmp_path)
        await store.close()
        with pytest.raises(Internal, match="closed"):
            await store.put(pod(1))

    asyncio.run(main())


def test_state_is_for_root_only(tmp_path: Path) -> None:
    os.umask(0o022)
    asyncio.run(fill(tmp_path))
    assert (tmp_path / "pods").stat().st_mode & 0o077 == 0
    assert (tmp_path / "pods" / pod(1).id / "record.json").stat().st_mode & 0o077 == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path, 32 << 20) as point:
        yield point


@pytest.mark.parametrize(
    "left", [(), ("state.db-wal", "state.db-shm"), ("state.db-wal",)], ids=["closed", "killed", "no index"]
)
def test_on_a_read_only_disk_everything_is_read_and_written_again_once_that_is_possible(
    disk: Path, left: tuple[str, ...]
) -> None:
    async def fill() -> None:
        store = await Store.open(disk / "state")
        await store.put(pod(1), container(1), image())
        await store.close()
        if left:  # the log, and its index, are there, as after a kill
            connection = sqlite3.connect(disk / "state/state.db")
            connection.execute("UPDATE meta SET value = value")
            connection.commit()
            for name in left:
                shutil.copy(disk / "state" / name, disk / name)
            connection.close()
            for name in left:
                shutil.move(disk / name, disk / "state" / name)

    async def story() -> None:
        store = await Store.open(disk / "state")
        assert (dict(store.pods), list(store.images)) == ({pod(1).id: pod(1)}, [image().id])
        assert store.findings == []
        with pytest.raises(Internal, match=r"state\.db.*Read-only file system.*writable again"):
            await store.put(pod(2))
        with pytest.raises(Internal, match="writable again"):
            await store.delete(pod(1))
        assert list(store.pods) == [pod(1).id]
        writable(disk)
        await store.put(pod(2))
        await store.delete(pod(1))
        await store.close()

    (disk / "state").mkdir()
    asyncio.run(fill())
    read_only(disk)
    asyncio.run(story())
    assert reopened(disk / "state") == [pod(2).id]


def reopened(state_dir: Path) -> list[PodId]:
    async def look() -> list[PodId]:
        store = await Store.open(state_dir)
        found = list(store.pods)
        await store.close()
        return found

    return asyncio.run(look())


def test_a_read_only_disk_is_told_as_such_whatever_its_name(disk: Path) -> None:
    async def story() -> None:
        store = await Store.open(disk / "full")
        await store.put(pod(1))
        await store.close()
        read_only(disk)
        store = await Store.open(disk / "full")
        with pytest.raises(Internal, match="writable again"):
            await store.put(pod(2))
        await store.close()

    (disk / "full").mkdir()
    asyncio.run(story())


@pytest.mark.parametrize("content", [None, b"SQLite format 3\0 it is not"], ids=["missing", "damaged"])
def test_a_database_that_must_be_rebuilt_is_left_as_it_is_on_a_read_only_disk(
    disk: Path, content: bytes | None
) -> None:
    state_dir = disk / "state"
    state_dir.mkdir()
    if content is not None:
        (state_dir / "state.db").write_bytes(content)
    read_only(disk)
    with pytest.raises(Internal, match=r"must be rebuilt: .*state\.db.*writable again"):
        asyncio.run(Store.open(state_dir))
    assert [path.read_bytes() for path in state_dir.iterdir()] == ([] if content is None else [content])
