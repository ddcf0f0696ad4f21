"""Coverage-guided fuzzing of the cores: `python -m tests.streams.fuzz spdy --seconds 600`.

Needs atheris (`pip install atheris h11 wsproto`), which is no part of the tests' environment: CI feeds the
corpus that it left (`tests/unit/api/streaming/test_corpus.py`). What it finds on the way is in a directory of
its own below the system's temporary one; a failing input is kept there and named. `--keep` puts what it
kept, because it covered more, into the corpus.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
"""A file for each target, an input in base64 a line."""


def inputs(target: str) -> list[bytes]:
    """The corpus of a target."""
    return [base64.b64decode(line) for line in (CORPUS / f"{target}.txt").read_text().splitlines()]


def keep(target: str, *directories: Path) -> None:
    """Make the files of directories a target's corpus."""
    files = {path.read_bytes() for directory in directories for path in directory.iterdir()}
    found = sorted(files, key=lambda data: (len(data), data))
    lines = [base64.b64encode(data).decode() for data in found]
    (CORPUS / f"{target}.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Ends the process: libFuzzer does, with 77 for a failure."""
    import atheris

    with atheris.instrument_imports(include=["api.streaming", "h11", "wsproto"]):
        from tests.streams import targets

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(targets.TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", action="store_true", help="put what was found into the corpus")
    options = parser.parse_args()
    top = Path(tempfile.gettempdir(), f"crisp-fuzz-{options.target}")
    found, known = top / "found", top / "known"
    for directory in (found, known):
        directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(inputs(options.target)):
        (known / str(number)).write_bytes(data)
    if options.keep:
        keep(options.target, found, known)
        return
    limits = ["-max_len=4096", f"-max_total_time={options.seconds}", f"-artifact_prefix={top}/failed-"]
    atheris.Setup([sys.argv[0], *limits, str(found), str(known)], targets.TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
