"""What a container needs on disk before its shim is asked to create it: bundle, log file, fifos. Blocking."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shim import files
from shim.logger.keeper import Outlet
from shim.runtimes.conmon import make_log
from shim.runtimes.driver import Target
from shim.runtimes.shimv2.task import Stdio


def prepare(target: Target, spec: Mapping[str, Any], directory: Path) -> Stdio:
    """Write config.json, make the log file, and fifos in `directory`. Raises Full, Internal."""
    document = json.dumps(spec, separators=(",", ":")).encode("ascii")
    names = ["out", *([] if target.tty else ["err"]), *(["in"] if target.stdin else [])]
    with files.writing(f"bundle of container {target.id}", target.directory):
        files.write_atomic(target.directory / "config.json", document)
        files.remove_tree(directory)
        files.make_private_directory(directory)
        for name in names:
            os.mkfifo(directory / name, 0o700)
    if target.log_path is not None:
        make_log(target.log_path)
    paths = {name: str(directory / name) for name in names}
    return Stdio(
        stdout=paths["out"],
        stderr=paths.get("err", ""),
        stdin=paths.get("in", ""),
        terminal=target.tty,
    )


def outlet(target: Target, directory: Path) -> Outlet:
    """The same, as the log process is told."""
    return Outlet(
        id=target.id,
        stdout=str(directory / "out"),
        stderr="" if target.tty else str(directory / "err"),
        stdin=str(directory / "in") if target.stdin else "",
        log="" if target.log_path is None else str(target.log_path),
        tty=target.tty,
        stdin_once=target.stdin_once,
    )
