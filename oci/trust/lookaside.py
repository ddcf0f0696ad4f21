"""containers-registries.d(5): where GPG signatures of images lie, and whether to look for cosign's.

Pure: the caller reads the files. `*-staging` is for who signs and means nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml

from oci.errors import BadInput
from oci.reference import Reference
from oci.trust.policy import registry_scopes

_KEYS = {"lookaside", "lookaside-staging", "sigstore", "sigstore-staging", "use-sigstore-attachments"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is said of one scope; "" and None: nothing."""

    lookaside: str = ""
    attachments: bool | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """All that the files say: by scope, and for the rest."""

    scopes: Mapping[str, Place] = field(default_factory=dict)
    default: Place = Place()

    def lookaside(self, reference: Reference) -> str:
        """The URL (file, http or https) below which the signatures lie, "" where none is configured."""
        return next((place.lookaside for place in self._of(reference) if place.lookaside), "")

    def attachments(self, reference: Reference) -> bool:
        """Whether cosign's attachments are looked for in the registry: unless a file says no."""
        said = (place.attachments for place in self._of(reference))
        return next((flag for flag in said if flag is not None), True)

    def _of(self, reference: Reference) -> Iterable[Place]:
        for scope in registry_scopes(reference):
            if scope in self.scopes:
                yield self.scopes[scope]
        yield self.default


def signature_url(base: str, repository: str, digest: str, number: int) -> str:
    """Where the signature of that number (from 1) of a manifest lies."""
    return f"{base.rstrip('/')}/{repository}@{digest.replace(':', '=')}/signature-{number}"


def parse_places(files: Iterable[tuple[str, bytes]]) -> Places:
    """What the files (path, content) of the directory say together. Raises BadInput: file, key, why."""
    scopes: dict[str, Place] = {}
    default: Place | None = None
    for path, body in files:
        try:
            document = yaml.safe_load(body) or {}
        except (yaml.YAMLError, ValueError, RecursionError) as failure:
            raise BadInput(f"{path}: not YAML: {' '.join(str(failure).split())[:300]}") from failure
        if not isinstance(document, dict) or not document.keys() <= {"docker", "default-docker"}:
            raise BadInput(f"{path}: only docker and default-docker are known at the top")
        if "default-docker" in document:
            if default is not None:
                raise BadInput(f"{path}: default-docker is given in {default.origin} already")
            default = _place(document["default-docker"], path, "default-docker")
        given = document.get("docker") or {}
        if not isinstance(given, dict):
            raise BadInput(f"{path}: docker is not a map")
        for scope, value in given.items():
            if scope in scopes:
                raise BadInput(f"{path}: docker.{scope} is given in {scopes[scope].origin} already")
            scopes[str(scope)] = _place(value, path, f"docker.{scope}")
    return Places(scopes=scopes, default=default or Place())


def _place(value: Any, path: str, key: str) -> Place:
    if not isinstance(value, dict):
        raise BadInput(f"{path}: {key} is not a map")
    if unknown := sorted(str(name) for name in value.keys() - _KEYS):
        raise BadInput(f"{path}: {key}: unknown key {unknown[0]!r}")
    base = value.get("lookaside") or value.get("sigstore") or ""
    if not isinstance(base, str) or (base and urlsplit(base).scheme not in ("file", "http", "https")):
        raise BadInput(f"{path}: {key}.lookaside is not a URL of file, http or https")
    flag = value.get("use-sigstore-attachments")
    if flag is not None and not isinstance(flag, bool):
        raise BadInput(f"{path}: {key}.use-sigstore-attachments is not true or false")
    return Place(lookaside=base, attachments=flag, origin=path)
