"""The policy files of the node and the keys that they name, as they are at each look. Blocking, for threads.

Nothing is kept longer than its file is the same, so a change counts at once.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from oci.errors import BadInput
from oci.trust.lookaside import Places, parse_places
from oci.trust.policy import Demand, Policy, parse_policy
from oci.trust.requirements import AcceptAnything, key_files
from shim.images.settings import TrustSettings

T = TypeVar("T")

_MOST_BYTES = 4 << 20
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
ANYTHING = Policy(
    default=Demand(requirements=(AcceptAnything(),), scope="no policy is configured"), transports={}
)
LOOKASIDE = "file:///var/lib/containers/sigstore"
"""Where signatures lie that no file of registries.d places; the peers' default."""


@dataclass(frozen=True, slots=True)
class _Read(Generic[T]):
    identity: tuple[int, ...]
    value: T


class TrustFiles:
    """Reads what the settings name. For any thread."""

    def __init__(self, settings: TrustSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._policies: dict[Path, _Read[Policy]] = {}
        self._keys: dict[Path, _Read[bytes]] = {}

    def policy(self, namespace: str) -> Policy:
        """What holds for a pod of that namespace ("" for nobody's). Raises BadInput: file, key, why."""
        directory = self._settings.policy_dir
        if directory is not None and _NAMESPACE.match(namespace):
            found = self._policy(directory / f"{namespace}.json")
            if found is not None:
                return found
        path = self._settings.policy
        if path is None:
            return ANYTHING
        found = self._policy(path)
        if found is None:
            if self._settings.required:
                raise BadInput(f"{path}: the signature policy is configured and not there")
            return ANYTHING
        return found

    def _policy(self, path: Path) -> Policy | None:
        return self._take(self._policies, path, lambda body: parse_policy(body, where=str(path)))

    def keys(self, demand: Demand) -> dict[str, bytes]:
        """Every key file of the demand's requirements. Raises BadInput for one that cannot be read."""
        found = {}
        for path in key_files(demand.requirements):
            body = self._take(self._keys, Path(path), lambda body: body)
            if body is None:
                raise BadInput(f"{demand.scope}: {path}: no such file")
            found[path] = body
        return found

    def places(self) -> Places:
        """What registries.d says; read at each call, which is rare. Raises BadInput."""
        directory = self._settings.registries_dir
        if directory is None:
            return Places()
        try:
            paths = sorted(path for path in directory.iterdir() if path.suffix == ".yaml")
        except (FileNotFoundError, NotADirectoryError):
            return Places()
        return parse_places(_contents(paths))

    def _take(self, cache: dict[Path, _Read[T]], path: Path, parse: Callable[[bytes], T]) -> T | None:
        try:
            with path.open("rb") as file:
                seen = os.fstat(file.fileno())
                identity = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
                with self._lock:
                    known = cache.get(path)
                if known is not None and known.identity == identity:
                    return known.value
                body = file.read(_MOST_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as failure:
            raise BadInput(f"{path}: {_why(failure)}") from failure
        if len(body) > _MOST_BYTES:
            raise BadInput(f"{path}: over {_MOST_BYTES} bytes")
        value = parse(body)
        with self._lock:
            cache[path] = _Read(identity, value)
        return value


def _contents(paths: Iterable[Path]) -> Iterable[tuple[str, bytes]]:
    for path in paths:
        try:
            with path.open("rb") as file:
                yield str(path), file.read(_MOST_BYTES)
        except OSError as failure:
            raise BadInput(f"{path}: {_why(failure)}") from failure


def _why(failure: OSError) -> str:
    name = errno.errorcode.get(failure.errno or 0, "")
    return f"{os.strerror(failure.errno or 0).lower()} ({name})"
