"""The SQLite file: opened, checked, read whole at start, written by one thread.

Write-ahead log with synchronous FULL: a committed transaction survives a power cut. Each row carries a
checksum, since SQLite's integrity check does not notice a changed payload. This module knows rows, not what
they mean.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from shim.files import is_read_only
from shim.state.mirror import Row

FORMAT = 1
"""The layout of the tables. A release reads the format before its own and the one after."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, checksum BLOB NOT NULL,
    PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deletions (
    kind TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
"""


class Damaged(Exception):
    """The file cannot be used as a database; the message says what SQLite found."""


class Database:
    """One open file. Every method is called from the store's writer thread only.

    On a file system that is `read_only` what there is can be read; each write tries to open it anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_only = is_read_only(path.parent)
        self._connection = self._open_read_only() if self.read_only else self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))
        except sqlite3.DatabaseError as error:
            connection.close()
            raise Damaged(f"{self.path}: {error}") from error
        self._check_format(connection)
        return connection

    def _check_format(self, connection: sqlite3.Connection) -> None:
        """Raises Damaged, the connection closed."""
        try:
            found = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
        except sqlite3.DatabaseError as error:
            connection.close()
            raise Damaged(f"{self.path}: {error}") from error
        if found is None or not isinstance(found[0], int) or abs(found[0] - FORMAT) > 1:
            connection.close()
            raise Damaged(f"{self.path}: format {found and found[0]} where {FORMAT} is known")

    def _open_read_only(self) -> sqlite3.Connection:
        """A log is read without the index beside it, which may be missing and cannot be made here.

        SQLite keeps one in memory where nobody else can have the file open (wal.html, section 6): the state
        directory is locked. The lock of the file itself would need a descriptor for writing.
        """
        log = self.path.with_name(f"{self.path.name}-wal")
        way = "mode=ro&vfs=unix-none" if log.exists() else "immutable=1"
        try:
            connection = sqlite3.connect(
                f"{self.path.as_uri()}?{way}", uri=True, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            raise Damaged(f"{self.path}: {error}") from error
        self._check_format(connection)
        return connection

    def _thaw(self) -> None:
        """Open for writing what was opened for reading. Raises OSError, sqlite3.Error."""
        if is_read_only(self.path.parent):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self.path))
        self._connection.close()  # two of one process would share what the first one found
        try:
            self._connection = self._open()
        except Damaged as error:
            raise sqlite3.DatabaseError(str(error)) from error
        self.read_only = False

    def read(self) -> tuple[list[Row], list[str]]:
        """All rows that are whole, and in words what is not: rows or pages."""
        rows: list[Row] = []
        damage: list[str] = []
        try:
            for line in self._connection.execute("PRAGMA quick_check"):
                if line[0] != "ok":
                    damage.append(f"{self.path}: {line[0]}")
            for kind, id_, seq, body, checksum in self._connection.execute(
                "SELECT kind, id, seq, body, checksum FROM records"
            ):
                try:
                    row = Row(kind, id_, seq, bytes(body))
                    whole = row.checksum() == checksum
                except (TypeError, ValueError):
                    whole = False
                if whole:
                    rows.append(row)
                else:
                    damage.append(f"{self.path}: record {kind!r} {id_!r} does not match its checksum")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            damage.append(f"{self.path}: {error}")
        return rows, damage

    def deletions(self) -> dict[tuple[str, str], int]:
        """What was forgotten, and at which sequence number: a copy that is not younger was forgotten too.

        The removal of a copy is not flushed, so a power cut can bring it back.
        """
        try:
            found = self._connection.execute("SELECT kind, id, seq FROM deletions").fetchall()
        except (sqlite3.Error, UnicodeDecodeError):
            return {}
        return {(str(kind), str(id_)): seq for kind, id_, seq in found if isinstance(seq, int)}

    def forget_deletions(self, seq: int) -> None:
        """Those up to `seq`, whose copies cannot come back any more. Raises sqlite3.Error."""
        self._connection.execute("DELETE FROM deletions WHERE seq <= ?", (seq,))

    def write(self, rows: Sequence[Row], deletions: Sequence[tuple[str, str, int]]) -> None:
        """One transaction; on an error nothing of it is kept and sqlite3.Error is raised.

        `deletions` are kinds, ids and sequence numbers; they are remembered until a row of that id comes.
        """
        if self.read_only:
            self._thaw()
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)",
                [(r.kind, r.id, r.seq, r.body, r.checksum()) for r in rows],
            )
            connection.executemany(
                "DELETE FROM deletions WHERE kind = ? AND id = ?", [(r.kind, r.id) for r in rows]
            )
            connection.executemany(
                "DELETE FROM records WHERE kind = ? AND id = ?", [(kind, id_) for kind, id_, _ in deletions]
            )
            connection.executemany("INSERT OR REPLACE INTO deletions VALUES (?, ?, ?)", deletions)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file; the write-ahead log is folded in."""
        self._connection.close()


def set_aside(path: Path) -> Path:
    """Rename a damaged database and its companions out of the way; returns the new name."""
    target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    number = 0
    while target.exists():
        number += 1
        target = target.with_name(f"{target.name.split('+', maxsplit=1)[0]}+{number}")
    for suffix in ("", "-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(target.with_name(target.name + suffix))
    return target
