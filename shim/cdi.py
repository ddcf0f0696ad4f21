"""The node's CDI specifications: read where they lie, as they are at each request that names a device.

A file is parsed again when it is another one than before, by its inode, size and times; so a change counts at
once and needs no watch. Blocking; callers use a thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from oci.bundle.inputs import ResolvedDevice
from oci.cdi import DeviceNodeEdit, Edits, QualifiedName, Registry, Spec, parse
from oci.errors import BadInput, Unsupported
from oci.facts import DeviceNode, ResolvedUser
from shim.facts.host import device_node

log = logging.getLogger(__name__)

_MOST_BYTES = 8 << 20  # of one file
_ENDINGS = (".json", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class _Read:
    """A file as it was read: what it is, or why it is passed over."""

    identity: tuple[int, ...]
    spec: Spec | None
    problem: str = ""


class Cdi:
    """The specifications in `directories`, lowest precedence first."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = tuple(directories)
        self._read: dict[Path, _Read] = {}

    def registry(self) -> Registry:
        """Everything there is now. What cannot be read is passed over and named in `problems`. Blocking."""
        problems: list[str] = []
        found: list[tuple[str, list[Spec]]] = []
        known: dict[Path, _Read] = {}
        for directory in self._directories:
            specs: list[Spec] = []
            for path in _files(directory, problems):
                read = _take(path, self._read.get(path))
                if read is None:
                    continue
                known[path] = read
                if read.spec is not None:
                    specs.append(read.spec)
                else:
                    problems.append(read.problem)
            found.append((os.fspath(directory), specs))
        self._read = known
        return Registry.of(found, problems)

    def edits(self, asked: Mapping[QualifiedName, str]) -> Edits:
        """What those devices change; `asked` has the request's field by name. Blocking.

        Raises BadInput for a device that is not there, Unsupported for an edit that cannot be made, or where
        CDI is switched off.
        """
        if not asked:
            return Edits()
        if not self._directories:
            name, field = next(iter(asked.items()))
            raise Unsupported(f"{field}: {str(name)!r}: CDI is off here, containers.cdi_spec_dirs is empty")
        return self.registry().edits(asked)


def _files(directory: Path, problems: list[str]) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix in _ENDINGS)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        problems.append(f"{directory}: {error.strerror}")
        return []


def _take(path: Path, before: _Read | None) -> _Read | None:
    """None for what is no file, or went meanwhile."""
    try:
        with path.open("rb") as file:
            seen = os.fstat(file.fileno())
            identity = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
            if before is not None and before.identity == identity:
                return before
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise BadInput(f"CDI specification {path}: over {_MOST_BYTES} bytes")
        return _Read(identity, parse(data, source=os.fspath(path)))
    except (FileNotFoundError, IsADirectoryError):
        return None
    except OSError as error:
        return _Read((), None, f"CDI specification {path}: {error.strerror}")
    except BadInput as error:
        log.warning("CDI specification passed over", extra={"path": str(path), "reason": error.message})
        return _Read(identity, None, error.message)


def resolve_nodes(edits: Edits, user: ResolvedUser) -> tuple[ResolvedDevice, ...]:
    """The device nodes of `edits`, with what their specification leaves open taken from the host. Blocking.

    A node without owner is the process's, as in other runtimes. Raises BadInput for one that is not there.
    """
    return tuple(
        ResolvedDevice(node=_owned(_node(edit), edit, user), permissions=edit.permissions)
        for edit in edits.nodes
    )


def _node(edit: DeviceNodeEdit) -> DeviceNode:
    if edit.type == "p":
        return DeviceNode(path=edit.path, kind="p", major=0, minor=0, mode=edit.fileMode or 0o600)
    if edit.type and edit.major and edit.fileMode is not None:
        kind, major, minor = edit.type, edit.major, edit.minor
        return DeviceNode(path=edit.path, kind=kind, major=major, minor=minor, mode=edit.fileMode)
    place = edit.hostPath or edit.path
    what = f"CDI device node {edit.path}"
    try:
        seen = device_node(os.path.realpath(place))
    except OSError as error:
        raise BadInput(f"{what}: {place} on the host: {os.strerror(error.errno or 0)}") from error
    if seen is None:
        raise BadInput(f"{what}: {place} on the host is no device")
    if edit.type and edit.type.replace("u", "c") != seen.kind:
        raise BadInput(f"{what}: it is of type {edit.type!r}, and {place} on the host of type {seen.kind!r}")
    return replace(
        seen,
        path=edit.path,
        major=edit.major or seen.major,
        minor=edit.minor if edit.major else seen.minor,
        mode=seen.mode if edit.fileMode is None else edit.fileMode,
    )


def _owned(node: DeviceNode, edit: DeviceNodeEdit, user: ResolvedUser) -> DeviceNode:
    uid = edit.uid if edit.uid is not None else user.uid or node.uid
    gid = edit.gid if edit.gid is not None else user.gid or node.gid
    return replace(node, uid=uid, gid=gid)
