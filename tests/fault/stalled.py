"""`crispd` whose records reach the disk no more once FILE is there: `stalled.py FILE --config CONFIG`.

A commit that begins then neither succeeds nor fails, as on a disk that hangs; what has reached it stays.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from api.daemon import run
from api.logs import configure
from config.loading import load
from shim.state.database import Database
from shim.state.mirror import Row

_FILE = Path(sys.argv[1])


_write = Database.write


def _stalled(database: Database, rows: Sequence[Row], deletions: Sequence[tuple[str, str]]) -> None:
    if _FILE.exists():
        threading.Event().wait()
    _write(database, rows, deletions)


def main() -> None:
    loaded = load(Path(sys.argv[3]), required=True)
    Database.write = _stalled  # type: ignore[method-assign]
    configure(loaded.settings.log.level, loaded.settings.log.format)
    os.umask(0o022)
    asyncio.run(run(loaded))


if __name__ == "__main__":
    main()
