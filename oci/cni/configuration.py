"""CNI network configurations: `.conf` and `.conflist` files as checked values (CNI specification, section 1).

Keys that the specification does not name belong to the plugins and pass through untouched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from oci.errors import BadInput

VERSIONS: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Versions whose configurations and results are understood, oldest first."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$"
_TYPE = r"^[^/\x00]+$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One plugin of a network: its binary's name, the capabilities that it asks for, and all its keys."""

    type: str
    capabilities: frozenset[str]
    keys: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network: its plugins in the order of ADD. `source` says where it came from, for messages."""

    name: str
    version: str
    plugins: tuple[Plugin, ...]
    disable_check: bool = False
    disable_gc: bool = False
    source: str = ""

    def at_least(self, version: str) -> bool:
        """Whether the configuration's version is `version` (one of VERSIONS) or newer."""
        return VERSIONS.index(self.version) >= VERSIONS.index(version)

    def document(self) -> dict[str, Any]:
        """The network as a conflist, from which `parse` makes an equal value."""
        return {
            "cniVersion": self.version,
            "name": self.name,
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "plugins": [dict(plugin.keys) for plugin in self.plugins],
        }


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class _Plugin(_Loose):
    type: Annotated[str, Field(pattern=_TYPE)]
    capabilities: dict[str, StrictBool] = {}


class _List(_Loose):
    name: Annotated[str, Field(pattern=_NAME)]
    cniVersion: str = "0.2.0"  # noqa: N815 - the key of the format; libcni's default where it is missing
    cniVersions: list[str] = []  # noqa: N815
    disableCheck: StrictBool | Annotated[str, Field(pattern=r"(?i)^(true|false)$")] = False  # noqa: N815
    disableGC: StrictBool | Annotated[str, Field(pattern=r"(?i)^(true|false)$")] = False  # noqa: N815
    plugins: Annotated[list[dict[str, Any]], Field(min_length=1)]


def parse(data: bytes, *, source: str) -> Network:
    """A configuration file's text, single plugin or list, told apart by the key `plugins`.

    Raises BadInput that names `source` and the key.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"CNI configuration {source}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInput(f"CNI configuration {source}: not a JSON object")
    return from_document(document, source=source)


def from_document(document: Mapping[str, Any], *, source: str) -> Network:
    """`parse` for a decoded document."""
    listed = dict(document)
    if "plugins" not in listed:
        if "type" not in listed:
            raise BadInput(f"CNI configuration {source}: neither `plugins` nor `type` is there")
        listed = {key: listed[key] for key in ("name", "cniVersion", "cniVersions") if key in listed}
        listed["plugins"] = [dict(document)]
    try:
        checked = _List.model_validate(listed)
        plugins = tuple(_plugin(keys, _Plugin.model_validate(keys)) for keys in checked.plugins)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"CNI configuration {source}: {where}: {first['msg'].lower()}") from error
    return Network(
        name=checked.name,
        version=_choose(checked.cniVersion, checked.cniVersions, source),
        plugins=plugins,
        disable_check=_truth(checked.disableCheck),
        disable_gc=_truth(checked.disableGC),
        source=source,
    )


def _plugin(keys: Mapping[str, Any], checked: _Plugin) -> Plugin:
    asked = frozenset(name for name, wanted in checked.capabilities.items() if wanted)
    return Plugin(type=checked.type, capabilities=asked, keys=dict(keys))


def _truth(value: bool | str) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _choose(version: str, offered: Sequence[str], source: str) -> str:
    """The newest version that the configuration offers and that is understood (specification 1.1)."""
    known = [candidate for candidate in {version or "0.2.0", *offered} if candidate in VERSIONS]
    if not known:
        raise BadInput(
            f"CNI configuration {source}: cniVersion: {version[:40]!r} is not supported, "
            f"supported are {', '.join(VERSIONS)}"
        )
    return max(known, key=VERSIONS.index)


def is_configuration_file(name: str) -> bool:
    """Whether a file of the configuration directory counts, by its name."""
    return re.search(r"\.(?:conf|conflist|json)\Z", name) is not None and not name.startswith(".")
