"""Deletions are remembered until the removal of their copies is on the disk, then forgotten, many at a time.

Belongs to the writer's thread. What flushes the disk has a thread of its own: no record waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading

from shim.state.database import Database

log = logging.getLogger(__name__)

REMEMBERED = 1000
"""Deletions beyond which it is made sure that the copies are gone."""


class Forgetting:
    """`count` deletions are remembered already."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._flusher: threading.Thread | None = None
        self._flushed = 0

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
        os.sync()
        self._flushed = seq
