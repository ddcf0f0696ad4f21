"""The records of one daemon: read from memory, written through one thread, each change numbered.

`put` and `delete` return once the change is durable; memory changes at that moment, on the event loop, in the
order of the commits. Changes that wait at the same time share one transaction. Readers never wait. What the
machine itself proves may be seen before its commit (`docs/decisions/events.md`).
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from oci.errors import CrispError, Full, Internal
from oci.workload import ContainerId, ImageId, PodId
from shim.files import WRITABLE_AGAIN, is_read_only
from shim.records import ContainerRecord, ImageRecord, LayerRecord, PodRecord
from shim.state.codec import Undecodable, decode, encode, merge
from shim.state.database import Damaged, Database, set_aside
from shim.state.forgetting import Forgetting
from shim.state.mirror import Mirror, Row

log = logging.getLogger(__name__)

Record = PodRecord | ContainerRecord | ImageRecord | LayerRecord

_KINDS: dict[str, type] = {
    "pod": PodRecord,
    "container": ContainerRecord,
    "image": ImageRecord,
    "layer": LayerRecord,
}


def _key(record: Record) -> tuple[str, str]:
    match record:
        case PodRecord():
            return "pod", record.id
        case ContainerRecord():
            return "container", record.id
        case ImageRecord():
            return "image", record.id
        case LayerRecord():
            return "layer", record.diff_id


@dataclass(frozen=True, slots=True)
class Change:
    """One change; `before` is None for a new record, `after` for a deleted one.

    `seq` grows from one to the next. What is not `durable` will be, or is found again by the next life.
    """

    seq: int
    before: Record | None
    after: Record | None
    durable: bool = True


@dataclass(slots=True)
class _Write:
    kind: str
    id: str
    record: Record | None
    row: Row | None
    document: Any
    seq: int
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Store:
    """Open with `await Store.open(state_dir)`; `findings` says in words what had to be repaired."""

    def __init__(self, state_dir: Path, *, on_commit: Callable[[int], None] | None = None) -> None:
        self._mirror = Mirror(state_dir)
        self._path = state_dir / "state.db"
        self._on_commit = on_commit
        self._records: dict[str, dict[Any, Any]] = {kind: {} for kind in _KINDS}
        self._documents: dict[tuple[str, str], Any] = {}
        self._pending: dict[tuple[str, str], Any] = {}
        self._listeners: list[Callable[[Change], None]] = []
        self._queue: queue.SimpleQueue[list[_Write] | None] = queue.SimpleQueue()
        self._seq = 0
        self._told = 0
        self._commits = 0
        self._forgetting = Forgetting(state_dir)
        self._database: Database | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.findings: list[str] = []
        self.pods: Mapping[PodId, PodRecord] = MappingProxyType(self._records["pod"])
        self.containers: Mapping[ContainerId, ContainerRecord] = MappingProxyType(self._records["container"])
        self.images: Mapping[ImageId, ImageRecord] = MappingProxyType(self._records["image"])
        self.layers: Mapping[str, LayerRecord] = MappingProxyType(self._records["layer"])

    @classmethod
    async def open(cls, state_dir: Path, *, on_commit: Callable[[int], None] | None = None) -> Store:
        """Read everything; a damaged database is set aside and rebuilt from the objects' directories.

        `on_commit` is called in the writer thread with the number of the commit (fault tests stop there).
        """
        store = cls(state_dir, on_commit=on_commit)
        await asyncio.to_thread(store._load)
        store._told = store._seq
        store._loop = asyncio.get_running_loop()
        store._thread = threading.Thread(target=store._write_loop, name="state-writer", daemon=True)
        store._thread.start()
        return store

    @property
    def seq(self) -> int:
        """The number of the latest change."""
        return self._seq

    def containers_of(self, pod_id: PodId) -> list[ContainerRecord]:
        """All containers of one pod, in the order of their making."""
        found = [c for c in self.containers.values() if c.pod_id == pod_id]
        return sorted(found, key=lambda c: c.created_at)

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` on the event loop once each change is visible; returns the way to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def put(self, *records: Record, proven: bool = False) -> None:
        """Keep `records`, each replacing the one of its id, in one commit. Raises Full, else Internal.

        A `proven` one is visible at once, and stays so when it cannot be written: the machine shows the same
        to a daemon that starts without it. It replaces none that is still being written.
        """
        await self._submit([self._putting(record, proven=proven) for record in records])

    def _putting(self, record: Record, *, proven: bool) -> _Write:
        kind, id_ = _key(record)
        key = (kind, id_)
        visible = self._records[kind].get(id_) is record
        if proven and not visible and self._thread is not None and key not in self._pending:
            self._show(kind, id_, record, self._seq + 1, durable=False)
        known = self._pending.get(key, self._documents.get(key))
        document = merge(type(record), known, encode(record))
        self._pending[key] = document
        self._seq += 1
        row = Row(kind, id_, self._seq, json.dumps(document, separators=(",", ":")).encode())
        return _Write(kind, id_, record, row, document, self._seq)

    async def delete(self, record: Record) -> None:
        """Forget the record of that id; absent is success."""
        kind, id_ = _key(record)
        self._seq += 1
        await self._submit([_Write(kind, id_, None, None, None, self._seq)])

    async def close(self) -> None:
        """Write what is queued and close the file."""
        if self._thread is None:
            return
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._thread = None

    async def _submit(self, writes: list[_Write]) -> None:
        if self._thread is None:
            names = ", ".join(f"{write.kind} {write.id}" for write in writes)
            raise Internal(f"state store: closed, cannot write {names}")
        self._queue.put(writes)
        for write in writes:
            await asyncio.shield(write.done)

    def _write_loop(self) -> None:
        assert self._loop is not None
        assert self._database is not None
        closing = False
        while not closing:
            batch: list[_Write] = []
            item = self._queue.get()
            while True:
                if item is None:
                    closing = True
                    break
                batch += item
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                error = self._write(batch)
                self._loop.call_soon_threadsafe(self._settle, batch, error)
                if error is None:
                    deleted = sum(write.row is None for write in batch)
                    self._forgetting.after(self._database, deleted, batch[-1].seq)
        self._database.close()

    def _write(self, batch: list[_Write]) -> CrispError | None:
        assert self._database is not None
        latest = {(w.kind, w.id): w for w in batch}
        try:
            for write in latest.values():
                if write.row is None:
                    self._mirror.remove(write.kind, write.id)
            self._database.write(
                [w.row for w in latest.values() if w.row is not None],
                [(w.kind, w.id, w.seq) for w in latest.values() if w.row is None],
            )
        except (sqlite3.Error, OSError) as error:
            return _write_error(self._path, error)
        for write in latest.values():
            if write.row is not None:
                self._copy(write.row)
        self._commits += 1
        if self._on_commit is not None:
            self._on_commit(self._commits)
        return None

    def _copy(self, row: Row) -> None:
        try:
            self._mirror.write(row)
        except OSError as error:
            # The database has the record; only the second line of defence is missing.
            log.warning("record copy not written", extra={"record": row.id, "error": str(error)})

    def _settle(self, batch: list[_Write], error: CrispError | None) -> None:
        for write in batch:
            key = (write.kind, write.id)
            if error is not None:
                self._pending.pop(key, None)
                if not write.done.cancelled():
                    write.done.set_exception(error)
                    write.done.exception()  # seen here: the caller may be gone
                continue
            if write.record is None:
                self._documents.pop(key, None)
                self._pending.pop(key, None)
            else:
                self._documents[key] = write.document
                if self._pending.get(key) is write.document:
                    del self._pending[key]
            if not write.done.cancelled():
                write.done.set_result(None)
            if write.record is None or self._records[write.kind].get(write.id) is not write.record:
                self._show(write.kind, write.id, write.record, write.seq)

    def _show(self, kind: str, id_: str, record: Record | None, seq: int, *, durable: bool = True) -> None:
        before = self._records[kind].get(id_)
        if record is None:
            self._records[kind].pop(id_, None)
        else:
            self._records[kind][id_] = record
        # Those that were numbered earlier, and are still being written, are told later.
        self._told = max(self._told + 1, seq)
        change = Change(self._told, before, record, durable)
        for listener in list(self._listeners):
            listener(change)

    def _load(self) -> None:
        rows: dict[tuple[str, str], Row] = {}
        damage: list[str] = []
        try:
            self._database = Database(self._path)
            found, damage = self._database.read()
            rows = {(r.kind, r.id): r for r in found}
        except Damaged as error:
            damage = [str(error)]
        # A damaged database has no say in what was forgotten: better one object too many.
        deletions = self._database.deletions() if self._database is not None and not damage else {}
        # What comes must be younger than what was forgotten, or it would be taken for that.
        self._seq = max(deletions.values(), default=0)
        self._forgetting = Forgetting(self._path.parent, len(deletions))
        read_only = self._database is not None and self._database.read_only
        copies: dict[tuple[str, str], int] = {}
        for copy in self._mirror.rows():
            if isinstance(copy, Path):
                self.findings.append(f"{copy}: record copy is damaged")
                continue
            if deletions.get((copy.kind, copy.id), -1) >= copy.seq:
                if not read_only:
                    self._mirror.remove(copy.kind, copy.id)  # came back with the power
                continue
            copies[copy.kind, copy.id] = copy.seq
            if (known := rows.get((copy.kind, copy.id))) is None or known.seq < copy.seq:
                if self._database is not None and not damage:
                    damage.append(f"{self._path}: record {copy.kind} {copy.id} is missing or old")
                rows[copy.kind, copy.id] = copy
        for row in rows.values():
            self._take(row)
        if damage:
            self._rebuild(damage, rows)
        elif not read_only:
            # A copy can be damaged, or one change behind after a crash: damage to the database may come next.
            for row in rows.values():
                if copies.get((row.kind, row.id)) != row.seq:
                    self._copy(row)
        self.findings.extend(damage)

    def _take(self, row: Row) -> None:
        self._seq = max(self._seq, row.seq)
        cls = _KINDS.get(row.kind)
        if cls is None:
            self.findings.append(f"{self._path}: record kind {row.kind!r} is not known here, it is kept")
            return
        try:
            document = json.loads(row.body)
            self._records[row.kind][row.id] = decode(cls, document)
            self._documents[row.kind, row.id] = document
        except (ValueError, Undecodable) as error:
            self.findings.append(f"{self._path}: {row.kind} {row.id}: {error}; it is kept but not used")

    def _rebuild(self, damage: list[str], rows: Mapping[tuple[str, str], Row]) -> None:
        if is_read_only(self._path.parent):
            raise Internal(f"state store, which must be rebuilt: {damage[0]}, {WRITABLE_AGAIN}")
        if self._database is not None:
            self._database.close()
        aside = set_aside(self._path)
        damage.append(f"the damaged database is kept as {aside}")
        self._database = Database(self._path)
        self._database.write(list(rows.values()), [])
        for row in rows.values():
            self._copy(row)


def _write_error(path: Path, error: Exception) -> CrispError:
    if is_read_only(path.parent):  # SQLite tells only of an I/O error, or of a database that is read-only
        return Internal(f"state store {path}: {error}, {WRITABLE_AGAIN}")
    full = getattr(error, "errno", None) == errno.ENOSPC or "full" in str(error)
    if full:
        return Full(f"state store {path}: {error}, free some space on its file system")
    return Internal(f"state store {path}: {error}")
