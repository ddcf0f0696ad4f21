"""What each pod is attached to, kept in a file a pod, so that DEL can be told what ADD was told.

Written before the first ADD and again with the results. It is all that a detach needs: the configuration may
have changed or gone meanwhile. Blocking.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from oci import ids
from oci.cni.configuration import Network, from_document
from oci.errors import CrispError
from oci.workload import PodId
from shim.files import make_private_directory, write_atomic, writing

log = logging.getLogger(__name__)

_FORMAT: Final = "crisp-cni-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One network of a pod: as it was configured, and what ADD answered (None: no success is known)."""

    network: Network
    interface: str
    args: str
    capabilities: Mapping[str, Any]
    result: Mapping[str, Any] | None = None


class Attachments:
    """The files of one directory, named after pods."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """Make the directory. Raises OSError, Internal."""
        make_private_directory(self._directory)

    def put(self, pod_id: PodId, attachments: tuple[Attachment, ...]) -> None:
        """Replace what is kept of a pod. Raises Full, Internal."""
        document = {
            "format": _FORMAT,
            "attachments": [
                {
                    "network": attachment.network.document(),
                    "interface": attachment.interface,
                    "args": attachment.args,
                    "capabilities": dict(attachment.capabilities),
                    "result": None if attachment.result is None else dict(attachment.result),
                }
                for attachment in attachments
            ],
        }
        path = self._path(pod_id)
        with writing("what DEL will need", path):
            write_atomic(path, json.dumps(document, separators=(",", ":")).encode())

    def get(self, pod_id: PodId) -> tuple[Attachment, ...] | None:
        """What is kept of a pod; None when nothing is, or it is damaged (which is logged)."""
        path = self._path(pod_id)
        try:
            document = json.loads(path.read_bytes())
            return tuple(
                Attachment(
                    network=from_document(entry["network"], source=str(path)),
                    interface=str(entry["interface"]),
                    args=str(entry["args"]),
                    capabilities=dict(entry["capabilities"]),
                    result=None if entry["result"] is None else dict(entry["result"]),
                )
                for entry in document["attachments"]
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError, CrispError) as error:
            log.warning("kept network results are damaged", extra={"path": str(path), "error": repr(error)})
            return None

    def remove(self, pod_id: PodId) -> None:
        """Forget a pod; absent is success. Raises OSError."""
        self._path(pod_id).unlink(missing_ok=True)

    def pods(self) -> frozenset[PodId]:
        """All pods of which something is kept."""
        try:
            stems = [entry.name.removesuffix(".json") for entry in self._directory.iterdir()]
        except FileNotFoundError:
            return frozenset()
        return frozenset(PodId(stem) for stem in stems if ids.is_full(stem))

    def _path(self, pod_id: PodId) -> Path:
        return self._directory / f"{pod_id}.json"
