"""`python -m benchmarks`: crispd and containerd, the same work by turns, one table. Needs root."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from time import gmtime, strftime

from benchmarks import handlers, images, place, report, rows
from benchmarks.rows import GROUPS
from benchmarks.run import SMOKE, Counts
from benchmarks.sides import Containerd, Crispd, Side
from tests.parts.build import build


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    images.make(smoke=options.smoke)  # there is no network inside, for these and what is compiled
    if "kubelet" in (options.groups or GROUPS):
        build("kubelet")
    status = place.enter(arguments)
    return _measure(options) if status is None else status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"any of {', '.join(GROUPS)}; all if none")
    parser.add_argument("--smoke", action="store_true", help="a few rounds of everything, in seconds")
    parser.add_argument("--only", choices=["crispd", "containerd"], help="one side alone, without ratios")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    for field in fields(Counts):
        parser.add_argument(f"--{field.name}", type=int, metavar="N")
    return parser


def _measure(options: argparse.Namespace) -> int:
    chosen = {f.name: getattr(options, f.name) for f in fields(Counts)}
    base = SMOKE if options.smoke else Counts()
    counts = Counts(
        **{
            f.name: chosen[f.name] if chosen[f.name] is not None else getattr(base, f.name)
            for f in fields(Counts)
        }
    )
    unknown = set(options.groups) - set(GROUPS)
    if unknown:
        print(f"no group {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    group = f"{place.GROUPS}/{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        top = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True))
        )
        top.chmod(0o755)
        stack.callback(place.unmount_below, top)
        stack.enter_context(place.groups(group))
        served = stack.enter_context(images.registry(smoke=options.smoke))
        sides: list[Side] = []
        wanted = "handlers" in (options.groups or GROUPS)
        has = handlers.available(top / handlers.PLACE) if wanted else handlers.NONE
        if options.only != "containerd":
            crispd = Crispd(top / "a", group=group, handlers=has.crispd)
            stack.enter_context(crispd.running(served.registry))
            sides.append(crispd)
        if options.only != "crispd":
            containerd = Containerd(top / "b", runtimes=has.containerd, path=has.path)
            stack.enter_context(containerd.running(served.registry))
            sides.append(containerd)
        print(_machine(sides), flush=True)
        made = rows.measure(
            sides, options.groups or list(GROUPS), counts, top=group, directory=top, served=served, say=_say
        )
        print(f"\n{report.table(made)}\n\n{_load()}", flush=True)
        if options.json:
            options.json.write_text(json.dumps({row.name: dict(row.values) for row in made}))
        failures = [text for side in sides if isinstance(side, Crispd) for text in side.exceptions]
        for text in failures:
            print(f"crispd logged an exception:\n{text}", file=sys.stderr)
        return 1 if failures else 0


def _say(words: str) -> None:
    print(f"  {words}", file=sys.stderr, flush=True)


def _machine(sides: Sequence[Side]) -> str:
    runc = subprocess.run(
        [str(shutil.which("runc")), "--version"], capture_output=True, text=True, check=True
    ).stdout.split("\n")[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return "\n".join(
        [
            strftime("%Y-%m-%d %H:%M UTC", gmtime()),
            f"{os.cpu_count()} processors, {memory:.0f} GiB, Linux {platform.release()}, Python"
            f" {platform.python_version()}, {runc}",
            ", ".join(f"{side.name} {side.version}" for side in sides),
            _load(),
        ]
    )


def _load() -> str:
    return f"load: {' '.join(f'{value:.1f}' for value in os.getloadavg())}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
