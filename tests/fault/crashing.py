"""`crispd` that kills itself right after its N-th durable write: `crashing.py N --config FILE`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from api.daemon import run
from api.logs import configure
from config.loading import load


def main() -> None:
    last = int(sys.argv[1])
    loaded = load(Path(sys.argv[3]), required=True)
    configure(loaded.settings.log.level, loaded.settings.log.format)
    os.umask(0o022)

    def committed(number: int) -> None:
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(run(loaded, on_commit=committed))


if __name__ == "__main__":
    main()
