"""`crispd` that kills itself right after its N-th durable write: `crashing.py N PREFIX --config FILE`.

Every id that it makes begins with PREFIX, so that what it leaves can be told from what others have.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path

from api import composition
from api.daemon import run
from api.logs import configure
from config.loading import load


class _Marked:
    """Stands for the module of that name in the composition root."""

    @staticmethod
    def token_hex(size: int) -> str:
        prefix = sys.argv[2]
        return prefix + secrets.token_hex(size)[len(prefix) :]


def main() -> None:
    last = int(sys.argv[1])
    loaded = load(Path(sys.argv[4]), required=True)
    composition.secrets = _Marked  # type: ignore[assignment]
    configure(loaded.settings.log.level, loaded.settings.log.format)
    os.umask(0o022)

    def committed(number: int) -> None:
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(run(loaded, on_commit=committed))


if __name__ == "__main__":
    main()
