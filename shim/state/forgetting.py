"""Deletions are remembered until the removal of their copies is on the disk, then forgotten, many at a time.

Belongs to the writer's thread. What flushes the disk has a thread of its own: no record waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from pathlib import Path

from shim.files import sync_file_system
from shim.state.database import Database

log = logging.getLogger(__name__)

REMEMBERED = 1000
"""Deletions beyond which it is made sure that the copies are gone."""


class Forgetting:
    """`count` deletions of the objects of that state directory are remembered already."""

    def __init__(self, directory: Path, count: int = 0) -> None:
        self._directory = directory
        self._count = count
        self._flusher: threading.Thread | None = None
        self._flushed = 0  # the number up to which removals are on the disk; -1 when it cannot be told

    def after(self, database: Database, deleted: int, seq: int) -> None:
        """So many deletions were written, none numbered higher than `seq`. An error is only logged."""
        self._count += deleted
        if self._flusher is None:
            if self._count > REMEMBERED:
                flusher = threading.Thread(target=self._flush, args=(seq,), name="state-flush", daemon=True)
                with contextlib.suppress(RuntimeError):  # no thread to be had: after the next write
                    flusher.start()
                    self._flusher = flusher
        elif self._flushed:
            try:
                database.forget_deletions(self._flushed)
            except sqlite3.Error as error:
                log.warning("old deletions are still remembered", extra={"error": str(error)})
            # What was deleted meanwhile is not counted: it goes with the next ones.
            self._count, self._flushed, self._flusher = 0, 0, None

    def _flush(self, seq: int) -> None:
        try:
            sync_file_system(self._directory)  # that one alone: another, of a volume, may hang
        except OSError as error:
            log.warning("old deletions are still remembered", extra={"error": str(error)})
            self._flushed = -1
        else:
            self._flushed = seq
