"""The kind "timed": a runtime with an OCI command line, whose verbs' durations are appended to a file.

It shows all that a kind must do: say which interface it was written for, find out whether a handler can be
used, and make the driver. Here both are Crisp's own for "oci", with a clock around the driver's verbs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from oci.errors import Unsupported
from shim.runtimes.driver import Driver
from shim.runtimes.kinds import Candidate, DriverContext, Machine
from shim.runtimes.ocikind import OciKind
from shim.runtimes.table import Handler

VERBS = ("create", "start", "kill", "delete", "exec_sync")


class TimedKind:
    """See `shim.runtimes.kinds.Kind`. Its one setting is `plugin.file`, where the durations go."""

    interface = 1

    def __init__(self) -> None:
        self._oci = OciKind()

    async def probe(self, candidate: Candidate, machine: Machine) -> Handler:
        file = candidate.settings.plugin.get("file")
        if not isinstance(file, str) or not file.startswith("/"):
            raise Unsupported(f"handlers.{candidate.name}.plugin.file: no absolute path: {file!r}")
        return await self._oci.probe(candidate, machine)

    def driver(self, handler: Handler, context: DriverContext) -> Driver:
        return TimedDriver(self._oci.driver(handler, context), Path(handler.plugin["file"]))


class TimedDriver:
    """Every verb is the other driver's; those of VERBS leave a line `VERB MILLISECONDS`."""

    def __init__(self, driver: Driver, file: Path) -> None:
        self._driver = driver
        self._file = file

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._driver, name)
        if name not in VERBS:
            return member

        async def timed(*args: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return await member(*args, **named)
            finally:
                with self._file.open("a") as file:
                    file.write(f"{name} {(time.monotonic() - began) * 1000:.1f}\n")

        return timed
