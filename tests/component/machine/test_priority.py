"""The daemon's threads go first; what they start does not."""

from __future__ import annotations

import json
import subprocess
import sys

from shim.priority import NICE
from tests.daemon import TREE

_PROGRAM = """
import asyncio, json, os, threading
from shim import process
from shim.priority import prefer

async def main():
    waiting = threading.Event()
    earlier = threading.Thread(target=waiting.wait)
    earlier.start()
    prefer()
    later = await asyncio.to_thread(os.getpriority, os.PRIO_PROCESS, 0)
    child = (await process.run(["nice"], timeout=20)).stdout.decode().strip()
    print(json.dumps({
        "own": os.getpriority(os.PRIO_PROCESS, 0),
        "earlier": os.getpriority(os.PRIO_PROCESS, earlier.native_id),
        "later": later,
        "child": int(child),
    }))
    waiting.set()

asyncio.run(main())
"""


def test_threads_that_answer_go_first_and_what_they_start_is_ordinary() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=TREE,
        capture_output=True,
        check=True,
        timeout=60,
        start_new_session=True,
    )
    assert json.loads(done.stdout) == {
        "own": NICE,
        "earlier": NICE,
        "later": NICE,
        "child": 0,
    }
