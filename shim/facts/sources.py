"""What mounts and devices of a request are on the host, before anything is built from them.

Blocks, possibly for long: a source may lie on a dead network file system. Callers use a thread and a limit.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from oci.bundle.devices import permissions
from oci.bundle.inputs import DefaultMount, ResolvedDevice, ResolvedMount
from oci.bundle.text import absolute_path
from oci.errors import BadInput, CrispError, Unsupported
from oci.facts import DeviceNode, Peering, SourceFacts
from oci.workload import DeviceRequest, MountRequest, Propagation
from shim.facts.host import device_node
from shim.kernel import mountinfo

_MOST_NODES = 4096  # of one directory of devices
_MOST_PROFILE_BYTES = 8 * 1024 * 1024


def resolve_mounts(
    requests: tuple[MountRequest, ...], provided: Mapping[int, str] = MappingProxyType({})
) -> tuple[ResolvedMount, ...]:
    """Each request with what its source is; links of the source are resolved.

    `provided` has the directories of those that show an image, by their place in `requests`.

    The table of mounts is read only if a request propagates or covers /proc. Raises BadInput for a source
    that does not exist or cannot be reached. Blocking.
    """
    table: tuple[mountinfo.Mount, ...] | None = None
    found = []
    for n, request in enumerate(requests):
        field = f"config.mounts[{n}]"
        if request.image is not None:
            source = SourceFacts(path=provided[n], is_directory=True)
            found.append(ResolvedMount(request=request, source=source))
            continue
        path, is_directory = _source(f"{field}.host_path", request.host_path)
        source = SourceFacts(path=path, is_directory=is_directory)
        on_proc = request.container_path.rstrip("/") == "/proc"
        if on_proc or request.propagation is not Propagation.PRIVATE:
            table = table if table is not None else mountinfo.mounts()
            holder = holding(path, table)
            source = replace(source, peering=peering(holder), file_system=holder.type if holder else "")
        found.append(ResolvedMount(request=request, source=source))
    return tuple(found)


def check_default_mounts(mounts: Iterable[DefaultMount]) -> None:
    """Raises Unsupported for a mount of all containers whose source is not there. Blocking."""
    for mount in mounts:
        if not os.path.exists(mount.source):  # noqa: PTH110 -- a string, at every creation
            raise Unsupported(
                f"{mount.source} is not on this node, and containers.default_mounts or containers.timezone"
                f" wants it at {mount.target} in every container"
            )


def _source(field: str, path: str) -> tuple[str, bool]:
    try:
        real = os.path.realpath(absolute_path(field, path), strict=True)
        return real, stat.S_ISDIR(os.stat(real).st_mode)  # noqa: PTH116 -- a string in, a string out
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise BadInput(f"{field}: {path[:400]!r} cannot be mounted: {reason}") from error


def holding(path: str, table: tuple[mountinfo.Mount, ...]) -> mountinfo.Mount | None:
    """The mount on which a resolved path lies: the deepest target, of equal ones the newest."""
    best: mountinfo.Mount | None = None
    for mount in table:
        target = mount.target.rstrip("/")
        fits = path == target or path.startswith(f"{target}/")
        if fits and (best is None or len(target) >= len(best.target.rstrip("/"))):
            best = mount
    return best


def peering(mount: mountinfo.Mount | None) -> Peering:
    """How it propagates; one that is shared and slave both can do what a shared one can."""
    fields = mount.propagation if mount is not None else ()
    if any(field.startswith("shared:") for field in fields):
        return Peering.SHARED
    return Peering.SLAVE if any(field.startswith("master:") for field in fields) else Peering.PRIVATE


def resolve_devices(requests: tuple[DeviceRequest, ...]) -> tuple[ResolvedDevice, ...]:
    """The nodes of each request as they shall appear in the container; a directory gives all nodes below it.

    Raises BadInput for what is no device, does not exist, or a directory without devices. Blocking.
    """
    found: list[ResolvedDevice] = []
    for n, request in enumerate(requests):
        field = f"config.devices[{n}]"
        letters = permissions(f"{field}.permissions", request.permissions)
        inside = absolute_path(f"{field}.container_path", request.container_path or request.host_path)
        path, is_directory = _device_path(f"{field}.host_path", request.host_path)
        nodes = list(_below(path)) if is_directory else [_node(f"{field}.host_path", path)]
        if not nodes:
            raise BadInput(f"{field}.host_path: no device in the directory {path!r}")
        if len(nodes) > _MOST_NODES:
            raise BadInput(f"{field}.host_path: over {_MOST_NODES} devices in {path!r}")
        for node in nodes:
            shown = inside + node.path[len(path) :]
            found.append(ResolvedDevice(node=replace(node, path=shown), permissions=letters))
    return tuple(found)


def _device_path(field: str, path: str) -> tuple[str, bool]:
    try:
        return _source(field, path)
    except CrispError as error:
        raise BadInput(error.message.replace("cannot be mounted", "is no device")) from error


def _node(field: str, path: str) -> DeviceNode:
    try:
        node = device_node(path)
    except OSError as error:
        raise BadInput(f"{field}: {path!r}: {os.strerror(error.errno or 0)}") from error
    if node is None:
        raise BadInput(f"{field}: {path!r} is not a device")
    return node


def _below(directory: str) -> Iterator[DeviceNode]:
    seen = 0
    for parent, inner, names in os.walk(directory):
        inner.sort()
        for name in sorted(names):
            try:
                node = device_node(f"{parent}/{name}")
            except OSError:
                continue  # gone between listing and looking
            if node is not None:
                seen += 1
                yield node
            if seen > _MOST_NODES:
                return


def read_seccomp_profile(
    ref: str, *, field: str = "config.linux.security_context.seccomp.localhost_ref"
) -> Mapping[str, Any]:
    """The profile at an absolute path: the JSON of `linux.seccomp`; `field` is what names it.

    Raises BadInput when it is missing, no regular file, over 8 MiB, or not of that shape. Blocking.
    """
    path = absolute_path(field, ref.removeprefix("localhost/"))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadInput(f"{field}: {path!r} is not a regular file")
            content = file.read(_MOST_PROFILE_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{field}: {path!r} cannot be read: {os.strerror(error.errno or 0)}") from error
    if len(content) > _MOST_PROFILE_BYTES:
        raise BadInput(f"{field}: {path!r} is over {_MOST_PROFILE_BYTES} bytes")
    try:
        profile = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{field}: {path!r} is not JSON: {error}") from error
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise BadInput(f"{field}: {path!r} is not a seccomp profile: it has no defaultAction")
    for n, rule in enumerate(_rules(field, path, profile)):
        names = rule.get("names") if isinstance(rule, dict) else None
        if not isinstance(names, list) or not isinstance(rule.get("action"), str):
            raise BadInput(f"{field}: {path!r}: rule {n} has no names or no action")
    return profile


def _rules(field: str, path: str, profile: dict[str, Any]) -> list[Any]:
    rules = profile.get("syscalls")
    if rules is None:
        return []
    if not isinstance(rules, list):
        raise BadInput(f"{field}: {path!r}: syscalls is not a list")
    return rules
