"""Qualified names of devices, `VENDOR/CLASS=NAME`, and where a request writes them (CDI SPEC.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oci.errors import BadInput

ANNOTATION_PREFIX = "cdi.k8s.io/"
"""Annotations whose values are names, separated by commas."""

_KIND = r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?"
_QUALIFIED = re.compile(rf"({_KIND}/{_KIND})=({_NAME})\Z")
_KIND_ALONE = re.compile(rf"{_KIND}/{_KIND}\Z")
_NAME_ALONE = re.compile(rf"{_NAME}\Z")


@dataclass(frozen=True, slots=True)
class QualifiedName:
    """`kind` is VENDOR/CLASS."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}={self.name}"


def is_kind(text: str) -> bool:
    return _KIND_ALONE.match(text) is not None


def is_name(text: str) -> bool:
    return _NAME_ALONE.match(text) is not None


def qualified(text: str, field: str) -> QualifiedName:
    """Raises BadInput that names `field`."""
    found = _QUALIFIED.match(text)
    if found is None:
        raise BadInput(f"{field}: {text[:200]!r} is not the name of a device such as vendor.com/gpu=0")
    return QualifiedName(found[1], found[2])


def asked_names(devices: Sequence[str], annotations: Mapping[str, str]) -> dict[QualifiedName, str]:
    """Every device that a container asks for, once, with the field that asked first.

    The field's come first, then those of the annotations in the order of their keys. Raises BadInput.
    """
    found: dict[QualifiedName, str] = {}
    for n, text in enumerate(devices):
        field = f"config.CDI_devices[{n}].name"
        found.setdefault(qualified(text, field), field)
    for key in sorted(annotations):
        if key.startswith(ANNOTATION_PREFIX):
            field = f"config.annotations[{key!r}]"
            for text in annotations[key].split(","):
                found.setdefault(qualified(text.strip(), field), field)
    return found
