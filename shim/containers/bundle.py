"""The OCI configuration that a container was made from, read again from its bundle."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from oci.errors import Internal
from oci.workload import ContainerId

_KEPT: Final = 64
"""Processes that are kept, of 5 to 10 KiB each: probes ask the same containers again and again."""


def read_config(directory: Path, *, stage: str) -> dict[str, Any]:
    """The config.json of a bundle. Blocking. Raises Internal that begins with `stage`."""
    path = directory / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Internal(f"{stage}: cannot read the bundle's {path}: {error}") from error
    return config


class Processes:
    """The OCI process objects of running containers, whose bundles do not change any more."""

    def __init__(self) -> None:
        self._kept: OrderedDict[ContainerId, Mapping[str, Any]] = OrderedDict()

    async def of(self, id_: ContainerId, directory: Path) -> Mapping[str, Any]:
        """The process of a container that runs. Raises Internal."""
        process = self._kept.get(id_)
        if process is None:
            config = await asyncio.to_thread(read_config, directory, stage="exec")
            if not isinstance(process := config.get("process"), dict):
                raise Internal(f"exec: the bundle's {directory / 'config.json'} has no process")
            self._kept[id_] = process
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(id_)
        return process

    def forget(self, id_: ContainerId) -> None:
        """The container is no more."""
        self._kept.pop(id_, None)
