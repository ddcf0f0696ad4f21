"""Finding a handler's program: as configured, or by name on a search path."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from oci.errors import Unsupported
from shim import process


def search_path(environment: Mapping[str, str]) -> str:
    """The daemon's own PATH, followed by the directories that a service's PATH often lacks."""
    own = environment.get("PATH", "").split(":")
    return ":".join(dict.fromkeys(entry for entry in (*own, *process.PATH.split(":")) if entry[:1] == "/"))


def find(configured: Path | None, name: str, path: str, *, key: str) -> Path:
    """An executable file, as configured or found. Raises Unsupported that names the key to set. Blocking."""
    if configured is None:
        found = shutil.which(name, path=path)
        if found is None:
            raise Unsupported(f"{name} is not on PATH ({path}): install it or set {key}")
        return Path(found)
    if not configured.is_file():
        what = "is not a regular file" if configured.exists() else "does not exist"
        raise Unsupported(f"{key}: {configured} {what}")
    if not os.access(configured, os.X_OK):
        raise Unsupported(f"{key}: {configured} is not executable")
    return configured
