"""What an OCI runtime says of itself: the texts of `--version` and `features`, read without running it.

Facts from the runtime specification's features.md and the outputs of runc, crun and youki. Knows nothing of
where the texts come from; the kernel's version is an argument.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from oci.errors import BadInput

KERNEL_WITH_RECURSIVE_READ_ONLY = (5, 12)  # mount_setattr(2) with AT_RECURSIVE
CHECKPOINT_ANNOTATION = "org.opencontainers.runc.checkpoint.enabled"


class ExecGroup(Enum):
    """Whether `exec` puts its process into a cgroup below the container's.

    PATH is one name for all hierarchies, CONTROLLER also one for a single controller of cgroup version 1.
    """

    NONE = "none"
    PATH = "path"
    CONTROLLER = "controller"


def parse_exec_help(text: str) -> ExecGroup:
    """The output of `RUNTIME exec --help`, which is the only place where a runtime tells it."""
    option = re.search(r"^\s*--cgroup\b(.*(?:\n(?!\s*-).*)*)", text, re.MULTILINE)
    if option is None:
        return ExecGroup.NONE
    return ExecGroup.CONTROLLER if "<controller>:" in option[1] else ExecGroup.PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFeatures:
    """What the probe of the binary said; never concluded from its name.

    A runtime that says nothing gets the defaults: what every runtime in use has, and no more.
    """

    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False
    idmapped_mounts: bool = False
    seccomp: bool = True
    apparmor: bool = True
    selinux: bool = True
    checkpoint: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeVersion:
    """`name` and `version` as printed ("runc", "1.1.5+ds1"); `spec` is "" where it is not printed.

    `built_with` are crun's words such as "SECCOMP"; other runtimes print none.
    """

    name: str
    version: str
    spec: str = ""
    built_with: frozenset[str] = frozenset()


def parse_version(text: str) -> RuntimeVersion:
    """The output of `RUNTIME --version`: `NAME version VERSION`, then `key: value` lines.

    Raises BadInput where the first line has no version: then it is no OCI runtime.
    """
    lines = text.strip().splitlines()
    first = re.match(r"([^\s:]+)\s*(?:version:?|:)?\s+v?([0-9A-Za-z][\w.+~:-]*)", lines[0]) if lines else None
    # runsc that was built without its release's name prints a word in place of the version
    built = first is not None and any(line.startswith("spec:") for line in lines)
    if first is None or not (built or re.search(r"\d", first[2])):
        shown = lines[0][:80] if lines else ""
        raise BadInput(f"--version printed {shown!r}, which names no version")
    spec = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("spec:")), "")
    built_with = frozenset(re.findall(r"(?<!\S)\+([A-Z0-9_]+)(?!\S)", text))
    return RuntimeVersion(name=first[1], version=first[2], spec=spec, built_with=built_with)


def assumed_features(version: RuntimeVersion) -> HandlerFeatures:
    """Of a runtime without `features`: what its version text says it was built with, else the defaults."""
    if not version.built_with:
        return HandlerFeatures()
    return HandlerFeatures(
        seccomp="SECCOMP" in version.built_with,
        apparmor="APPARMOR" in version.built_with,
        selinux="SELINUX" in version.built_with,
        checkpoint="CRIU" in version.built_with,
    )


def parse_features(text: str | bytes, *, kernel: tuple[int, ...]) -> HandlerFeatures:
    """The output of `RUNTIME features`, with the running kernel's version (major, minor, ...).

    Raises BadInput where it is not the JSON object of the specification, which demands both version fields.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadInput(f"features printed no JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadInput(f"features printed a JSON {type(document).__name__}, not an object")
    for key in ("ociVersionMin", "ociVersionMax"):
        if not (isinstance(document.get(key), str) and document[key]):
            raise BadInput(f"features printed no {key}, which the specification demands")
    linux = _object(document, "linux")
    idmap = _object(linux, "mountExtensions", "idmap").get("enabled") is True
    return HandlerFeatures(
        recursive_read_only_mounts="rro" in _names(document, "mountOptions")
        and kernel >= KERNEL_WITH_RECURSIVE_READ_ONLY,
        user_namespaces="user" in _names(linux, "namespaces") and idmap,
        idmapped_mounts=idmap,
        seccomp=_object(linux, "seccomp").get("enabled") is not False,
        apparmor=_object(linux, "apparmor").get("enabled") is not False,
        selinux=_object(linux, "selinux").get("enabled") is not False,
        checkpoint=_object(document, "annotations").get(CHECKPOINT_ANNOTATION) == "true",
    )


def _object(document: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    value: Any = document
    for key in path:
        value = value.get(key)
        if not isinstance(value, dict):
            return {}
    return value  # type: ignore[no-any-return]


def _names(document: Mapping[str, Any], key: str) -> frozenset[str]:
    value = document.get(key)
    return (
        frozenset(name for name in value if isinstance(name, str)) if isinstance(value, list) else frozenset()
    )
