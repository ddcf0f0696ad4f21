"""The node's hook files, read at each creation of a container. Blocking; callers use a thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oci.errors import Unsupported
from oci.hooks import HookFile, by_name, parse
from shim.documents import Documents


class Hooks:
    """The hooks in `directories`; later ones replace those of earlier ones by file name."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._documents: Documents[HookFile] = Documents(
            directories,
            endings=(".json",),
            parse=lambda data, path: parse(data, source=path),
            what="hook",
        )

    def files(self) -> tuple[HookFile, ...]:
        """All there are now. Blocking.

        Raises Unsupported for one that cannot be read: to run without it could be to run without protection.
        """
        if not self._documents.directories:
            return ()
        found = self._documents.look()
        if found.problems:
            raise Unsupported(f"containers.hooks_dirs: {'; '.join(found.problems)}")
        return by_name(files for _, files in found.documents)
