"""The node's hooks: files that say which program runs at which containers (oci-hooks(5), 1.0.0). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from oci.cdi import Hook
from oci.cdi.spec import HookName
from oci.errors import BadInput


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Program(_Strict):
    path: Annotated[str, Field(pattern=r"^/[^\x00\n]*$")]
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = Field(default=None, gt=0)  # seconds


class _When(_Strict):
    """All that is set must hold, and something must be set."""

    always: bool | None = None
    annotations: dict[str, str] = {}
    commands: tuple[str, ...] = ()
    hasBindMounts: bool | None = None  # noqa: N815 - the key of the format

    @field_validator("annotations")
    @classmethod
    def _pairs(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in (*value, *value.values()):
            _pattern(pattern)
        return value

    @field_validator("commands")
    @classmethod
    def _commands(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            _pattern(pattern)
        return value


class _Document(_Strict):
    version: str
    hook: _Program
    when: _When
    stages: tuple[HookName, ...] = Field(min_length=1)

    @field_validator("version")
    @classmethod
    def _version(cls, value: str) -> str:
        if value != "1.0.0":
            raise ValueError(f"{value[:40]!r} is not 1.0.0")
        return value


def _pattern(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text[:80]!r} is not a regular expression: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class HookFile:
    """One file: its program at each of its stages, and when."""

    hooks: tuple[Hook, ...]
    when: _When

    def applies(self, *, command: str, annotations: Mapping[str, str], bind_mounts: bool) -> bool:
        """Whether a container with that program, annotations and mounts of the request gets the hooks."""
        when, holds = self.when, []
        if when.always is not None:
            holds.append(when.always)
        if when.hasBindMounts is not None:
            holds.append(when.hasBindMounts == bind_mounts)
        for key, value in when.annotations.items():
            pairs = annotations.items()
            holds.append(any(re.search(key, k) and re.search(value, v) for k, v in pairs))
        if when.commands:
            holds.append(any(re.search(pattern, command) for pattern in when.commands))
        return bool(holds) and all(holds)


def parse(data: bytes, *, source: str) -> HookFile:
    """Raises BadInput that names `source` and the member."""
    try:
        checked = _Document.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        words = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"hook {source}: {where}: {words[:1].lower()}{words[1:]}") from error
    program = json.loads(checked.hook.model_dump_json())
    hooks = tuple(Hook.model_validate_json(json.dumps({"hookName": s, **program})) for s in checked.stages)
    return HookFile(hooks=hooks, when=checked.when)


def by_name(directories: Iterable[Sequence[tuple[str, HookFile]]]) -> tuple[HookFile, ...]:
    """The files of all directories in the order of their names; of two of one name the later counts."""
    chosen = {name: file for files in directories for name, file in files}
    return tuple(chosen[name] for name in sorted(chosen))
