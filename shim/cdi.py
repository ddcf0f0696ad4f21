"""The node's CDI specifications, read at each request that names a device; and device nodes looked up.

Blocking; callers use a thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from oci.bundle.inputs import ResolvedDevice
from oci.cdi import DeviceNodeEdit, Edits, QualifiedName, Registry, Spec, parse
from oci.errors import BadInput, Unsupported
from oci.facts import DeviceNode, ResolvedUser
from shim.documents import Documents
from shim.facts.host import device_node


class Cdi:
    """The specifications in `directories`, lowest precedence first."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._documents: Documents[Spec] = Documents(
            directories,
            endings=(".json", ".yaml", ".yml"),
            parse=lambda data, path: parse(data, source=path),
            what="CDI specification",
        )

    def registry(self) -> Registry:
        """Everything there is now. What cannot be read is passed over and named in `problems`. Blocking."""
        found = self._documents.look()
        return Registry.of(
            [(os.fspath(directory), [spec for _, spec in specs]) for directory, specs in found.documents],
            found.problems,
        )

    def edits(self, asked: Mapping[QualifiedName, str]) -> Edits:
        """What those devices change; `asked` has the request's field by name. Blocking.

        Raises BadInput for a device that is not there, Unsupported for an edit that cannot be made, or where
        CDI is switched off.
        """
        if not asked:
            return Edits()
        if not self._documents.directories:
            name, field = next(iter(asked.items()))
            raise Unsupported(f"{field}: {str(name)!r}: CDI is off here, containers.cdi_spec_dirs is empty")
        return self.registry().edits(asked)


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
