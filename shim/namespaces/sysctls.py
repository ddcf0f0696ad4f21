"""Which sysctls a pod may set, and where each belongs: the pure half decides, the other half writes.

A sysctl is allowed only in a namespace that the pod owns; anything else would change the node.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oci.errors import BadInput, Internal
from oci.workload import NamespaceMode, NamespaceOptions
from shim.kernel.namespace import Kind

_PART = re.compile(r"[A-Za-z0-9_@.:-]+\Z")
_PREFIXES = {"kernel.shm": Kind.IPC, "kernel.msg": Kind.IPC, "fs.mqueue.": Kind.IPC, "net.": Kind.NETWORK}
_EXACT = {"kernel.sem": Kind.IPC, "kernel.hostname": Kind.UTS, "kernel.domainname": Kind.UTS}
_VALUE_LIMIT = 4096
_INTERFACE = re.compile(r"net/(?:ipv4|ipv6|mpls)/(?:conf|neigh)/([^/]+)/")
_FIELD = "config.linux.sysctls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl:
    """One setting: `path` below /proc/sys, `interface` where it exists only together with that link."""

    path: str
    value: str
    kind: Kind
    interface: str = ""


def path_of(name: str) -> str:
    """The path below /proc/sys: "net.ipv4.conf.eth0/1.arp_ignore" -> "net/ipv4/conf/eth0.1/arp_ignore".

    As sysctl(8): whichever of '.' and '/' comes first separates, the other stands for a '.' within a name.
    Raises BadInput.
    """
    first = re.search(r"[./]", name)
    path = name if first is not None and first[0] == "/" else name.translate(str.maketrans("./", "/."))
    parts = path.split("/")
    if len(parts) < 2 or any(not _PART.match(part) or part in (".", "..") for part in parts):
        raise BadInput(f"{_FIELD}: {name[:200]!r} is no name of a sysctl")
    return path


def kind_of(path: str) -> Kind | None:
    """The kind of namespace that a sysctl belongs to, None for one of the whole node."""
    dotted = path.replace("/", ".")
    if dotted in _EXACT:
        return _EXACT[dotted]
    return next((kind for prefix, kind in _PREFIXES.items() if dotted.startswith(prefix)), None)


def plan(sysctls: Mapping[str, str], owned: frozenset[Kind]) -> tuple[Sysctl, ...]:
    """The settings in the order of the request, for a pod that owns the namespaces `owned`.

    Raises BadInput for a malformed name or value, for a sysctl of the node, and for one of a namespace that
    the pod shares with the node.
    """
    found = []
    for name, value in sysctls.items():
        path = path_of(name)
        if not value or len(value) > _VALUE_LIMIT or any(mark in value for mark in "\n\r\0"):
            raise BadInput(
                f"{_FIELD}[{name}]: the value is empty, over {_VALUE_LIMIT} bytes or has line ends"
            )
        kind = kind_of(path)
        if kind is None:
            raise BadInput(f"{_FIELD}[{name}]: it belongs to the whole node, not to a namespace of the pod")
        if kind not in owned:
            raise BadInput(f"{_FIELD}[{name}]: the pod uses the node's {kind.file} namespace")
        link = _INTERFACE.match(path)
        interface = link[1] if link is not None and link[1] not in ("all", "default", "lo") else ""
        found.append(Sysctl(path=path, value=value, kind=kind, interface=interface))
    return tuple(found)


def default_sysctls(texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE of the node's settings, by name. Raises BadInput for a sysctl of the whole node."""
    found = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if kind_of(path_of(name)) is None:
            raise BadInput(f"containers.default_sysctls: {name} belongs to the whole node, not to a pod")
        found[name] = value
    return found


def with_defaults(
    asked: Mapping[str, str], defaults: Mapping[str, str], options: NamespaceOptions
) -> dict[str, str]:
    """The request's sysctls, after those defaults that the pod can have and does not set itself.

    A range of groups cannot be set in a user namespace that does not map it (net/ipv4/ping.c), so that one is
    left out there.
    """
    owned = {
        Kind.NETWORK: options.network is not NamespaceMode.NODE,
        Kind.UTS: options.network is not NamespaceMode.NODE,
        Kind.IPC: options.ipc is not NamespaceMode.NODE,
    }
    set_ = {path_of(name) for name in asked}
    chosen = {}
    for name, value in defaults.items():
        path = path_of(name)
        kind = kind_of(path)
        mapped = options.user is None or path != "net/ipv4/ping_group_range"
        if kind is not None and owned[kind] and path not in set_ and mapped:
            chosen[name] = value
    return {**chosen, **asked}


def write(setting: Sysctl) -> None:
    """Write one setting in the calling thread's namespaces.

    Raises BadInput when the kernel does not know it there or refuses the value, Internal otherwise.
    """
    file = Path("/proc/sys") / setting.path
    shown = f"{_FIELD}[{setting.path.replace('/', '.')}]"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(descriptor, setting.value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        words = f"{os.strerror(error.errno or 0)} ({errno.errorcode.get(error.errno or 0, '?')})"
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            raise BadInput(f"{shown}: {file} does not exist in the pod's namespace: {words}") from error
        if error.errno in (errno.EINVAL, errno.ERANGE, errno.EACCES, errno.EPERM):
            raise BadInput(f"{shown}: the kernel refuses {setting.value!r}: {words}") from error
        raise Internal(f"writing {file}: {words}") from error
