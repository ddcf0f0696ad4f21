"""The file that gVisor's shim reads at Create: which runsc, where it keeps its state, with which flags. Pure.

Each shim gets one of its own, so that a pod on the host's network may have another flag than its neighbours.
Who configures a file (`config_path`) has said everything: it is passed on as it is.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from oci.errors import BadInput
from oci.quirks import Quirks
from shim.runtimes.shimv2.bootstrap import NAMESPACE

NAME: Final = "config.toml"
_DEFAULT_ROOT: Final = "/run/containerd/runsc"
_DEFAULT_PROGRAM: Final = "runsc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What somebody's own file says: a name or path of the runtime, and its state directory."""

    program: str
    root: Path


def named(path: Path, text: str) -> Named:
    """Raises BadInput with the path and the place of the mistake."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: {error}") from error
    program, root = document.get("binary_name") or _DEFAULT_PROGRAM, document.get("root") or _DEFAULT_ROOT
    if not isinstance(program, str) or not isinstance(root, str):
        raise BadInput(f"{path}: binary_name and root must be texts")
    return Named(program=program, root=below(Path(root)))


def below(root: Path) -> Path:
    """Where a runtime below the shim keeps its state, whose `root` is this."""
    return root / NAMESPACE


def written(program: Path, root: Path, quirks: Quirks, spec: Mapping[str, Any]) -> str:
    """The file for a shim that is started for a container with this configuration."""
    kinds = {namespace["type"] for namespace in spec.get("linux", {}).get("namespaces", ())}
    options = quirks.options if "network" in kinds else (*quirks.options, *quirks.host_network_options)
    lines = [
        f"binary_name = {json.dumps(str(program))}",
        f"root = {json.dumps(str(root))}",
        "[runsc_config]",
        *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in _flags(options)),
    ]
    return "\n".join(lines) + "\n"


def _flags(options: Iterable[str]) -> list[tuple[str, str]]:
    split = (option.lstrip("-").partition("=") for option in options)
    return [(key, value if equals else "true") for key, equals, value in split]
