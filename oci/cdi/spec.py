"""CDI specifications, versions 0.3 to 1.1, JSON or YAML: parsed and checked (CDI SPEC.md).

A member that this does not know is an error: an edit that is not made would be found out by the workload.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from oci.cdi.names import is_kind, is_name
from oci.errors import BadInput

VERSIONS: Final = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")

HookName = Literal[
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
]  # fmt: skip
_ENV = re.compile(r"[^=\x00]+=[^\x00]*\Z")
_PERMISSIONS = re.compile(r"[rwm]{1,3}\Z")


def _absolute(value: str) -> str:
    if not value.startswith("/") or "\0" in value or "\n" in value or ".." in value.split("/"):
        raise ValueError(f"{value[:200]!r} is not an absolute path without '..'")
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DeviceNodeEdit(_Strict):
    """A device node at `path`; what is not said of it is looked up at `hostPath`, or at the same path."""

    path: str
    hostPath: str = ""  # noqa: N815 - the key of the format, like all below
    type: Literal["", "b", "c", "u", "p"] = ""
    major: int = Field(default=0, ge=0)
    minor: int = Field(default=0, ge=0)
    fileMode: int | None = Field(default=None, ge=0, le=0o7777)  # noqa: N815
    permissions: str = "rwm"
    uid: int | None = Field(default=None, ge=0, le=2**31 - 1)
    gid: int | None = Field(default=None, ge=0, le=2**31 - 1)

    _paths = field_validator("path")(_absolute)

    @field_validator("hostPath")
    @classmethod
    def _host_path(cls, value: str) -> str:
        return _absolute(value) if value else ""

    @field_validator("permissions")
    @classmethod
    def _permissions(cls, value: str) -> str:
        value = value or "rwm"
        if not _PERMISSIONS.match(value) or len(set(value)) != len(value):
            raise ValueError(f"{value!r} is not made of the letters r, w and m")
        return value


class MountEdit(_Strict):
    hostPath: str  # noqa: N815
    containerPath: str  # noqa: N815
    options: tuple[str, ...] = ()
    type: str = ""

    _target = field_validator("containerPath")(_absolute)


class Hook(_Strict):
    hookName: HookName  # noqa: N815
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = Field(default=None, gt=0)  # seconds

    _program = field_validator("path")(_absolute)


class ContainerEdits(_Strict):
    env: tuple[str, ...] = ()
    deviceNodes: tuple[DeviceNodeEdit, ...] = ()  # noqa: N815
    netDevices: tuple[dict[str, Any], ...] = ()  # noqa: N815
    hooks: tuple[Hook, ...] = ()
    mounts: tuple[MountEdit, ...] = ()
    intelRdt: dict[str, Any] | None = None  # noqa: N815
    additionalGids: tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...] = ()  # noqa: N815

    @field_validator("env")
    @classmethod
    def _env(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if not _ENV.match(entry):
                raise ValueError(f"{entry.partition('=')[0][:80]!r} is not an entry NAME=VALUE")
        return value


class Device(_Strict):
    name: str
    annotations: dict[str, str] = {}
    containerEdits: ContainerEdits  # noqa: N815

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError(f"{value[:80]!r} cannot name a device")
        return value


class _Document(_Strict):
    cdiVersion: str  # noqa: N815
    kind: str
    annotations: dict[str, str] = {}
    devices: tuple[Device, ...] = Field(min_length=1)
    containerEdits: ContainerEdits = ContainerEdits()  # noqa: N815

    @field_validator("cdiVersion")
    @classmethod
    def _version(cls, value: str) -> str:
        bare = value.removeprefix("v")
        if bare not in VERSIONS:
            raise ValueError(f"{value[:40]!r} is none of {', '.join(VERSIONS)}")
        return bare

    @field_validator("kind")
    @classmethod
    def _kind(cls, value: str) -> str:
        if not is_kind(value):
            raise ValueError(f"{value[:80]!r} is not VENDOR/CLASS")
        return value

    @field_validator("devices")
    @classmethod
    def _once(cls, value: tuple[Device, ...]) -> tuple[Device, ...]:
        names = [device.name for device in value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"device {twice!r} is there twice")
        return value


class Spec(BaseModel):
    """One specification. `source` is its file, for messages."""

    model_config = ConfigDict(frozen=True)

    kind: str
    source: str
    edits: ContainerEdits  # of every device, once
    devices: Mapping[str, ContainerEdits]


def parse(data: bytes, *, source: str) -> Spec:
    """The content of a specification's file, JSON where its name ends so, else YAML.

    Raises BadInput that names `source` and the member.
    """
    document = _decode(data, source)
    if not isinstance(document, dict):
        raise BadInput(f"CDI specification {source}: not an object")
    try:
        # Lists of the document are tuples here, which strictness would refuse outside of JSON.
        checked = _Document.model_validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        words = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"CDI specification {source}: {where}: {words[:1].lower()}{words[1:]}") from error
    except (TypeError, ValueError, RecursionError) as error:  # a date or the like, which JSON has not
        raise BadInput(f"CDI specification {source}: {error}") from error
    return Spec(
        kind=checked.kind,
        source=source,
        edits=checked.containerEdits,
        devices={device.name: device.containerEdits for device in checked.devices},
    )


def _decode(data: bytes, source: str) -> Any:
    try:
        return json.loads(data) if source.endswith(".json") else yaml.load(data, Loader=_PlainLoader)  # noqa: S506
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        form = "JSON" if source.endswith(".json") else "YAML"
        raise BadInput(f"CDI specification {source}: not {form}: {words[:400]}") from error


class _PlainLoader(yaml.SafeLoader):
    """Plain values only. Aliases, by which a small text can stand for an endless document, are refused."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not taken", event.start_mark)
        return super().compose_node(parent, index)
