"""Runs tests on a node: a virtual machine with systemd, cgroup v2 and AppArmor.

`python -m tests.node tests/component -k stats` gives its words to pytest in there; `--shell SCRIPT` runs
something else. Prints the job's output as it comes, leaves log, JUnit report, journal and console in a
directory, and ends with the job's status.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from tests.node import vm
from tests.node.image import image
from tests.node.package import packages
from tests.node.selection import script, trees
from tests.parts.build import cache

PACKAGES = "var/cache/crisp-tests/packages"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/node/run.sh", description=__doc__)
    parser.add_argument("--shell", metavar="SCRIPT", help="run this in /crisp instead of pytest")
    parser.add_argument(
        "--limit", type=float, default=3600, metavar="S", help="seconds for all (default 3600)"
    )
    parser.add_argument(
        "--packages", action="store_true", help="take the Debian package along, in two versions, built first"
    )
    parser.add_argument(
        "--part", action="append", default=[], metavar="NAME", help="take this part of tests/parts along too"
    )
    parser.add_argument(
        "--selinux", action="store_true", help="boot with SELinux enforcing in place of AppArmor"
    )
    parser.add_argument(
        "--boots", type=int, default=1, metavar="N",
        help="run the tests again after each of N - 1 reboots; the first is a reset without warning",
    )  # fmt: skip
    parser.add_argument("--results", type=Path, help="where log, report and journal go")
    options, words = parser.parse_known_args()
    signal.signal(signal.SIGTERM, _interrupt)
    results = (options.results or cache() / "node-results").absolute()
    job = options.shell or script(words, options.boots)
    built = {PACKAGES: packages()} if options.packages else {}
    with _Followed(results / "output.log"):
        outcome = vm.run(
            image(selinux=options.selinux),
            job,
            results,
            trees=trees(options.part) | built,
            limit=options.limit,
        )
    print(f"status {outcome.status} after {outcome.seconds:.0f} s; {results}", flush=True)
    return 1 if outcome.status is None else outcome.status


def _interrupt(number: int, frame: object) -> None:
    """A run that is ended from outside takes its scratch files away too."""
    raise KeyboardInterrupt(f"signal {number}")


class _Followed:
    """Copies a growing file to standard output within the block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(b"")
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _copy(self) -> None:
        position = 0
        last = False
        while not last:
            last = self._over.wait(1.0)
            with self._path.open("rb") as log:
                log.seek(position)
                text = log.read()
            position += len(text)
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
