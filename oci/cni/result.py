"""What a CNI plugin answers: results of every version and errors (CNI specification, section 5)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oci.errors import Busy, CrispError, Internal

CODE_UNKNOWN_CONTAINER: Final = 3
CODE_TRY_LATER: Final = 11
CODES: Final = {
    1: "incompatible CNI version",
    2: "unsupported field in the network configuration",
    3: "container unknown",
    4: "invalid environment variables",
    5: "input or output failed",
    6: "content could not be decoded",
    7: "invalid network configuration",
    11: "try again later",
    50: "the plugin is not available",
    51: "the plugin is not available, existing containers may have limited connectivity",
}

Preference = Literal["ipv4", "ipv6", "cni"]
"""Which family leads in a pod's addresses; "cni" keeps the plugin's order."""


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class _Interface(_Loose):
    name: str
    sandbox: str | None = None


class _Address(_Loose):
    address: str
    interface: Annotated[int, Field(ge=0)] | None = None


class _OldAddress(_Loose):
    ip: str


class _Result(_Loose):
    interfaces: list[_Interface] | None = None
    ips: list[_Address] | None = None
    ip4: _OldAddress | None = None  # 0.1.0 and 0.2.0
    ip6: _OldAddress | None = None


class _Error(_Loose):
    code: int
    msg: str = ""
    details: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A checked result: `document` is what the next plugin, CHECK and DEL are given back."""

    document: Mapping[str, Any] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()  # of the asked interface, without prefix length, in the plugin's order


class PluginFailed(Internal):
    """A plugin said no, or something that is no CNI answer. `code` is 0 where it gave none."""

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


def parse_result(output: bytes, *, interface: str, stage: str) -> Result:
    """A successful plugin's standard output; `stage` begins the messages. Raises PluginFailed."""
    try:
        document = json.loads(output)
        if not isinstance(document, dict):
            raise PluginFailed(f"{stage}: the answer is no JSON object: {_shown(output)}")
        return from_document(document, interface=interface, stage=stage)
    except (ValueError, RecursionError) as error:
        raise PluginFailed(f"{stage}: the answer is no JSON: {_shown(output)}") from error


def from_document(document: Mapping[str, Any], *, interface: str, stage: str) -> Result:
    """`parse_result` for a decoded document."""
    try:
        checked = _Result.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PluginFailed(f"{stage}: the result's {where}: {first['msg'].lower()}") from error
    texts = [old.ip for old in (checked.ip4, checked.ip6) if old is not None]
    interfaces = checked.interfaces or []
    for entry in checked.ips or []:
        if entry.interface is not None and interfaces:
            if entry.interface >= len(interfaces):
                raise PluginFailed(
                    f"{stage}: the result's {entry.address} is on interface {entry.interface} of none"
                )
            holder = interfaces[entry.interface]
            if holder.name != interface or not holder.sandbox:
                continue
        texts.append(entry.address)
    try:
        addresses = tuple(str(ipaddress.ip_interface(text).ip) for text in texts)
    except ValueError as error:
        raise PluginFailed(f"{stage}: the result has no address: {error}") from error
    return Result(document=dict(document), addresses=tuple(dict.fromkeys(addresses)))


def failure(status: int, output: bytes, errors: bytes, *, stage: str) -> CrispError:
    """The error for a plugin that ended with a status other than 0: Busy for code 11, else PluginFailed."""
    try:
        told = _Error.model_validate(json.loads(output))
    except (ValueError, RecursionError):  # ValidationError is a ValueError
        how = f"killed by signal {-status}" if status < 0 else f"status {status}"
        words = _shown(output) if output.strip() else _shown(errors) if errors.strip() else "no message"
        return PluginFailed(f"{stage}: {how}: {words}")
    parts = [part for part in (told.msg, told.details) if part]
    meaning = CODES.get(told.code)
    number = f"code {told.code}" + (f", {meaning}" if meaning else "")
    message = f"{stage}: {': '.join(parts) or 'no message'} ({number})"
    if told.code == CODE_TRY_LATER:
        return Busy(message)
    return PluginFailed(message, code=told.code)


def ordered(addresses: Iterable[str], preference: Preference) -> tuple[str, ...]:
    """Addresses with the preferred family first, each family in the given order."""
    listed = tuple(addresses)
    if preference == "cni":
        return listed
    version = 4 if preference == "ipv4" else 6
    return tuple(sorted(listed, key=lambda address: ipaddress.ip_address(address).version != version))


def _shown(output: bytes) -> str:
    return repr(" ".join(output[:400].decode("utf-8", "replace").split()))
