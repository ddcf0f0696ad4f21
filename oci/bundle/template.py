"""A handler's base specification: what every container of it is based on, under what Crisp writes itself.

Only members that cannot undo a decision of the request or of Crisp may be in one; any other is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from oci.errors import BadInput, Unsupported

Merge = Callable[[Any, Any], Any]


def _named(key: Callable[[Any], Any]) -> Merge:
    """Of two lists: all of the base whose key the configuration does not have, then the configuration's."""

    def merge(base: Any, own: Any) -> Any:
        taken = {key(one) for one in own or ()}
        return [*(one for one in base if key(one) not in taken), *(own or ())]

    return merge


def _maps(base: Any, own: Any) -> Any:
    return {**base, **(own or {})}


def _stages(base: Any, own: Any) -> Any:
    own = own or {}
    return {stage: [*base.get(stage, ()), *own.get(stage, ())] for stage in dict.fromkeys((*base, *own))}


def _rules(base: Any, own: Any) -> Any:
    """Device rules follow the first of the configuration, which forbids or allows everything."""
    own = own or []
    return [*own[:1], *base, *own[1:]]


_MEMBERS: Final[Mapping[tuple[str, ...], tuple[type, Merge]]] = {
    ("process", "env"): (list, _named(lambda entry: entry.partition("=")[0])),
    ("process", "rlimits"): (list, _named(lambda limit: limit["type"])),
    ("mounts",): (list, _named(lambda mount: mount["destination"])),
    ("hooks",): (dict, _stages),
    ("annotations",): (dict, _maps),
    ("linux", "sysctl"): (dict, _maps),
    ("linux", "devices"): (list, _named(lambda device: device["path"])),
    ("linux", "resources", "devices"): (list, _rules),
}
_OBJECTS: Final = {path[:n] for path in _MEMBERS for n in range(1, len(path))}
_KEYS: Final = {
    ("process", "rlimits"): "type",
    ("mounts",): "destination",
    ("linux", "devices"): "path",
    ("linux", "resources", "devices"): "access",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSpec:
    """The members of a base specification by their paths; none by default.

    `problem` says why the file cannot be used any more.
    """

    members: Mapping[tuple[str, ...], Any] = field(default_factory=dict)
    problem: str = ""

    def under(self, config: dict[str, Any]) -> dict[str, Any]:
        """`config` based on this; `config` itself stays as it is. Raises Unsupported for a `problem`."""
        if self.problem:
            raise Unsupported(self.problem)
        made = dict(config)
        for path, base in self.members.items():
            place = made
            for key in path[:-1]:
                place[key] = dict(place.get(key, {}))
                place = place[key]
            place[path[-1]] = _MEMBERS[path][1](base, place.get(path[-1]))
        if ("mounts",) in self.members:
            made["mounts"] = sorted(made["mounts"], key=lambda mount: mount["destination"].count("/"))
        return made


def parse(data: bytes, *, source: str) -> BaseSpec:
    """A base specification's file. Raises BadInput that names `source` and the member."""
    what = f"base specification {source}"
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{what}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInput(f"{what}: not a JSON object")
    document.pop("ociVersion", None)
    members: dict[tuple[str, ...], Any] = {}
    _walk(document, (), members, what)
    return BaseSpec(members=members)


def _walk(
    value: Mapping[str, Any], path: tuple[str, ...], members: dict[tuple[str, ...], Any], what: str
) -> None:
    for key, inner in value.items():
        here = (*path, key)
        shown = f"{what}: {'.'.join(here)[:200]}"
        if here in _MEMBERS:
            _check(inner, here, shown)
            members[here] = inner
        elif here in _OBJECTS:
            if not isinstance(inner, dict):
                raise BadInput(f"{shown}: not an object")
            _walk(inner, here, members, what)
        else:
            known = ", ".join(".".join(member) for member in _MEMBERS)
            raise BadInput(f"{shown}: nothing that containers can be based on (that are {known})")


def _check(value: Any, path: tuple[str, ...], what: str) -> None:
    wanted = _MEMBERS[path][0]
    if not issubclass(type(value), wanted):  # isinstance would take the type checker's Any
        raise BadInput(f"{what}: not {'a list' if wanted is list else 'an object'}")
    if path == ("hooks",) and not all(isinstance(stage, list) for stage in value.values()):
        raise BadInput(f"{what}: a stage is not a list")
    if path[-1] in ("sysctl", "annotations") and not all(isinstance(text, str) for text in value.values()):
        raise BadInput(f"{what}: a value is not a text")
    if path[-1] == "env" and not all(isinstance(one, str) and "=" in one for one in value):
        raise BadInput(f"{what}: an entry is not NAME=VALUE")
    key = _KEYS.get(path)
    if key is not None and not all(isinstance(one, dict) and isinstance(one.get(key), str) for one in value):
        raise BadInput(f"{what}: an entry has no {key}")
    if path == ("mounts",):
        for mount in value:
            target = mount["destination"]
            outside = not target.startswith("/") or ".." in target.split("/") or not target.strip("/")
            if outside or target.startswith("/proc/"):
                raise BadInput(f"{what}: {target[:200]!r} is no place for a mount")
