"""A directory of scripted CNI plugins, and what they were asked."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("cni_plugin.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One execution: `environment` is its CNI_* variables, `config` its decoded standard input."""

    plugin: str
    verb: str
    environment: dict[str, str]
    path: str
    config: dict[str, Any]
    pid: int


class CniPlugins:
    """Plugins "one" and "two" in `bin_dir`, scripted by `script`; see cni_plugin.py for the entries."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin_dir = directory / "bin"
        self.bin_dir.mkdir(parents=True)
        for name in ("one", "two"):
            self.install(name)
        self.script({})

    def install(self, name: str) -> None:
        program = self.bin_dir / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{PROGRAM}" "{self.directory}" {name}\n')
        program.chmod(0o755)

    def script(self, entries: dict[str, dict[str, Any]]) -> None:
        """What to do from now on, by "VERB" or "plugin VERB"."""
        (self.directory / "script.json").write_text(json.dumps(entries))

    def pipe(self, name: str) -> str:
        """A named pipe for an entry's "started" or "until"."""
        path = self.directory / name
        os.mkfifo(path)
        return str(path)

    def calls(self) -> list[Call]:
        """Everything asked so far, in order."""
        try:
            lines = (self.directory / "calls.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [Call(**json.loads(line)) for line in lines]

    def asked(self) -> list[str]:
        """`calls` in short: "plugin VERB"."""
        return [f"{call.plugin} {call.verb}" for call in self.calls()]


def conflist(*plugins: str, name: str = "pods", version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
    """A configuration of scripted plugins that declare every capability."""
    capabilities = {"portMappings": True, "bandwidth": True, "dns": True}
    listed = [{"type": plugin, "capabilities": capabilities} for plugin in plugins or ("one",)]
    return {"cniVersion": version, "name": name, "plugins": listed, **keys}
