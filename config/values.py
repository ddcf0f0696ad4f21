"""Types of single settings: how a TOML value becomes the value that the code reads, and what is refused.

The types take their own value too (`Seconds(2)`, `Path("/x")`), so that tests and code can build settings.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator

from config.units import Bytes, Seconds, parse_duration, parse_size

UNIX_PATH_MAX = 107  # unix(7): sun_path is 108 bytes with its final NUL


def _duration(value: Any) -> Any:
    if isinstance(value, Seconds):
        return value
    if not isinstance(value, str):
        raise ValueError(f"a duration is text with a unit, such as '30s' or '500ms', not {describe(value)}")
    return parse_duration(value)


def _positive_duration(value: Seconds) -> Seconds:
    if value <= 0:
        raise ValueError("the duration must be longer than 0")
    return value


def _size(value: Any) -> Any:
    if isinstance(value, Bytes):
        return value
    if not isinstance(value, str):
        raise ValueError(f"a size is text with a unit, such as '64MiB' or '1GB', not {describe(value)}")
    return parse_size(value)


def _path(value: Any) -> Any:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError(f"a path is text, not {describe(value)}")
    if "\x00" in value or "\n" in value:
        raise ValueError("a path holds neither NUL nor newline")
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is not an absolute path")
    if ".." in Path(value).parts:
        raise ValueError(f"{value!r} holds '..'")
    return Path(value)


def _socket_path(value: Path) -> Path:
    if len(str(value).encode()) > UNIX_PATH_MAX:
        raise ValueError(
            f"{str(value)!r} is longer than {UNIX_PATH_MAX} bytes, the limit of a unix socket's path"
        )
    return value


def _array(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, tuple):
        return value
    raise ValueError(f"an array is expected, such as ['a', 'b'], not {describe(value)}")


def _some(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("the array must not be empty")
    return value


def _subnet(value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a subnet such as '10.84.0.0/16': {error}") from None
    if network.num_addresses < 4:
        raise ValueError(f"{value!r} is too small: a subnet for pods needs at least 4 addresses")
    return value


def _one_of_each_family(value: tuple[str, ...]) -> tuple[str, ...]:
    versions = [ipaddress.ip_network(subnet).version for subnet in value]
    if len(versions) != len(set(versions)):
        raise ValueError("there may be one subnet of IPv4 and one of IPv6, not two of one kind")
    return value


def _interface_name(value: str) -> str:
    # net/core/dev.c dev_valid_name(): below IFNAMSIZ (16), no '/', ':', white space, not "." or ".."
    if not re.fullmatch(r"[^\s/:]{1,15}", value) or value in (".", ".."):
        raise ValueError(
            f"{value!r} cannot name a network interface: 1 to 15 characters without '/', ':', blanks"
        )
    return value


def _cgroup_prefix(value: str) -> str:
    # '-' in a systemd slice's name means nesting, so a prefix must not hold one
    if not re.fullmatch(r"[A-Za-z0-9_]{1,32}", value):
        raise ValueError(f"{value!r} must be 1 to 32 letters, digits or '_'")
    return value


def _cgroup_place(value: str) -> str:
    if (value and not re.fullmatch(r"[A-Za-z0-9_:.\\-]+\.slice|(/[^/\s]+)+", value)) or ".." in value:
        raise ValueError(
            f"{value!r} must be a slice such as 'crisp-monitors.slice' or a path such as '/crisp'"
        )
    return value


def _runtime_type(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+", value):
        raise ValueError(f"{value!r} is no runtime type such as io.containerd.runc.v2")
    return value


def _handler_name(value: str) -> str:
    # RuntimeClass.handler is a DNS label (node.k8s.io/v1); capitals and '_' are let through for other clients
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
        raise ValueError(f"{value!r} cannot name a handler: 1 to 63 letters, digits, '-', '_', '.'")
    return value


def _handler_kind(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", value):
        raise ValueError(f"{value!r} cannot name a kind of handlers: lower case letters, digits, '-'")
    return value


def _capability(value: str) -> str:
    if not re.fullmatch(r"CAP_[A-Z_]+", value):
        raise ValueError(
            f"{value!r} is not a capability: write it as capabilities(7) does, such as 'CAP_CHOWN'"
        )
    return value


def _environment_entry(value: str) -> str:
    if not re.fullmatch(r"[^=\x00]+=[^\x00]*", value):
        raise ValueError(f"{value!r} is not an environment entry: write NAME=VALUE")
    return value


def _sysctl(value: str) -> str:
    # A name has dots or slashes; a value is one line of the file below /proc/sys.
    if (
        not re.fullmatch(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_.:/@-]+)+\s*=\s*[^\x00\r\n]+", value)
        or ".." in value
    ):
        raise ValueError(f"{value!r} is not a sysctl: write NAME=VALUE")
    return value


def _container_path(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/") or re.search(r"[\x00-\x1f]", value):
        raise ValueError(f"{value!r} is not an absolute path without '..'")
    return value


def _mount(value: str) -> str:
    source, colon, target = value.partition(":")
    target = target.removesuffix(":ro").removesuffix(":rw")
    if not colon or ":" in target:
        raise ValueError(f"{value!r} is not a mount: write SOURCE:TARGET or SOURCE:TARGET:ro")
    _container_path(source)
    if _container_path(target).rstrip("/") == "" or target.startswith("/proc"):
        raise ValueError(f"{value!r}: neither / nor /proc can be mounted over")
    return value


def _time_zone(value: str) -> str:
    if value and (not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", value)):
        raise ValueError(f"{value!r} is not a time zone such as 'Europe/Vienna', nor 'local'")
    return value


def _umask(value: str) -> str:
    if value and not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError(f"{value!r} is not a umask: write three or four octal digits, such as '0027'")
    return value


def _apparmor_name(value: str) -> str:
    if not re.fullmatch(r"[^\x00-\x20\x7f/\"]{1,128}", value):
        raise ValueError(f"{value!r} cannot name an AppArmor profile")
    return value


def describe(value: Any) -> str:
    """What a TOML value is, in the words of the TOML specification, with the value if it is short."""
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int):
        return f"the integer {value}"
    if isinstance(value, float):
        return f"the float {value}"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, list | tuple):
        return "an array"
    if isinstance(value, dict):
        return "a table"
    return f"a {type(value).__name__}"


def _ip_address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address, such as 127.0.0.1 or ::1") from None
    if address.is_unspecified:
        raise ValueError(f"{text!r} stands for every address; clients need one that they can connect to")
    return str(address)


Duration = Annotated[Seconds, PlainValidator(_duration)]
PositiveDuration = Annotated[Seconds, PlainValidator(_duration), AfterValidator(_positive_duration)]
Size = Annotated[Bytes, PlainValidator(_size)]
AbsolutePath = Annotated[Path, BeforeValidator(_path)]
SocketPath = Annotated[Path, BeforeValidator(_path), AfterValidator(_socket_path)]
Paths = Annotated[tuple[AbsolutePath, ...], BeforeValidator(_array)]
SocketPaths = Annotated[tuple[SocketPath, ...], BeforeValidator(_array), AfterValidator(_some)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_array)]
Subnet = Annotated[str, AfterValidator(_subnet)]
Subnets = Annotated[
    tuple[Subnet, ...], BeforeValidator(_array), AfterValidator(_some), AfterValidator(_one_of_each_family)
]
InterfaceName = Annotated[str, AfterValidator(_interface_name)]
IpAddress = Annotated[str, AfterValidator(_ip_address)]
CgroupPlaceText = Annotated[str, AfterValidator(_cgroup_place)]
CgroupPrefix = Annotated[str, AfterValidator(_cgroup_prefix)]
HandlerKind = Annotated[str, AfterValidator(_handler_kind)]
HandlerName = Annotated[str, AfterValidator(_handler_name)]
RuntimeType = Annotated[str, AfterValidator(_runtime_type)]
Capability = Annotated[str, AfterValidator(_capability)]
CapabilityNames = Annotated[tuple[Capability, ...], BeforeValidator(_array)]
EnvironmentText = Annotated[str, AfterValidator(_environment_entry)]
EnvironmentTexts = Annotated[tuple[EnvironmentText, ...], BeforeValidator(_array)]
SysctlText = Annotated[str, AfterValidator(_sysctl)]
SysctlTexts = Annotated[tuple[SysctlText, ...], BeforeValidator(_array)]
ContainerPath = Annotated[str, AfterValidator(_container_path)]
ContainerPaths = Annotated[tuple[ContainerPath, ...], BeforeValidator(_array)]
MountText = Annotated[str, AfterValidator(_mount)]
MountTexts = Annotated[tuple[MountText, ...], BeforeValidator(_array)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Umask = Annotated[str, AfterValidator(_umask)]
AppArmorName = Annotated[str, AfterValidator(_apparmor_name)]
