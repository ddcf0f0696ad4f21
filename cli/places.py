"""Where the daemon is spoken to and keeps its logs: from options, environment and configuration files.

Only four keys matter here, and the models that judge all of them take longer to load than most commands run.
So the files are looked at with bare eyes, and the models are asked only when something in them is odd. Must
not know what else can be configured.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oci.errors import BadInput

MAIN_FILE = Path("/etc/crisp/config.toml")
STATE_DIR = Path("/var/lib/crisp")
RUN_DIR = Path("/run/crisp")
POD_LOGS = Path("/var/log/pods")
"""Where kubelet keeps logs (podLogsDir)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was said on the command line or in the environment; empty is unsaid."""

    config: str = ""
    run_dir: str = ""
    socket: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    admin_socket: Path
    state_dir: Path
    config: Path
    chosen: str  # what decided about the socket, for error texts

    @property
    def run_logs(self) -> Path:
        """Logs of pods of `crisp run`."""
        return self.state_dir / "logs"


def find(options: Options) -> Places:
    """The places that are in force. Raises BadInput for a configuration that cannot be read. Blocking."""
    config = Path(options.config) if options.config else MAIN_FILE
    keys = _keys(config, required=bool(options.config))
    state_dir = Path(keys.get("state_dir", STATE_DIR))
    run_dir = Path(keys.get("run_dir", RUN_DIR))
    if options.socket:
        socket, chosen = Path(options.socket), "--socket"
    elif options.run_dir:
        socket, chosen = Path(options.run_dir) / "admin.sock", "--run-dir"
    else:
        socket = Path(keys["admin_socket"]) if "admin_socket" in keys else run_dir / "admin.sock"
        chosen = str(config) if keys else "the default"
    return Places(admin_socket=socket.absolute(), state_dir=state_dir, config=config, chosen=chosen)


def _keys(config: Path, *, required: bool) -> Mapping[str, str]:
    try:
        return _look(config, required=required)
    except (OSError, ValueError):  # ValueError: TOML, UTF-8, types
        return _judge(config, required=required)


def _look(config: Path, *, required: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    drop_ins = config.parent / "conf.d"
    files = sorted(path for path in _listing(drop_ins) if path.suffix == ".toml" and path.name[0] != ".")
    for file in (config, *files):
        try:
            text = file.read_text()
        except FileNotFoundError:
            if required or file != config:
                raise
            continue
        found |= _strings(tomllib.loads(text))
    return found


def _listing(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []


def _strings(document: Mapping[str, Any]) -> dict[str, str]:
    keys = {key: document[key] for key in ("state_dir", "run_dir", "admin_socket") if key in document}
    if not all(isinstance(value, str) and value.startswith("/") for value in keys.values()):
        raise ValueError("odd")
    return keys


def _judge(config: Path, *, required: bool) -> Mapping[str, str]:
    from config.loading import ConfigError, load

    try:
        settings = load(config, required=required).settings
    except ConfigError as error:
        raise BadInput(str(error)) from error
    return {
        "state_dir": str(settings.state_dir),
        "run_dir": str(settings.run_dir),
        "admin_socket": str(settings.admin_socket),
    }
