"""Which image a name means, and how names move between images. Pure: records in, records out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from oci.errors import BadInput
from oci.reference import Reference, is_digest, parse
from oci.trust.policy import DOCKER
from oci.workload import ImageId
from shim.records import Admission, ImageRecord

_HEX = re.compile(r"[0-9a-f]{1,64}\Z")


def _plainly(name: str) -> tuple[Reference, ...]:
    return (parse(name),)


def find(
    name: str,
    images: Mapping[ImageId, ImageRecord],
    meaning: Callable[[str], tuple[Reference, ...]] = _plainly,
) -> ImageRecord | None:
    """The image that `name` means, None if there is none.

    A reference first (short names completed by `meaning`, a digest deciding over a tag), then an id, whole,
    bare or as a prefix. Raises BadInput for an empty name and for a prefix of several ids.
    """
    if not name:
        raise BadInput("image: empty name")
    if is_digest(name):
        return images.get(ImageId(name))
    found = by_reference(name, images, meaning)
    if found is not None:
        return found
    prefix = name.removeprefix("sha256:")
    if not _HEX.match(prefix):
        return None
    matches = [record for key, record in images.items() if key.startswith(f"sha256:{prefix}")]
    if len(matches) > 1:
        raise BadInput(f"image: {name} is ambiguous, it begins the ids of {len(matches)} images")
    return matches[0] if matches else None


def by_reference(
    name: str, images: Mapping[ImageId, ImageRecord], meaning: Callable[[str], tuple[Reference, ...]]
) -> ImageRecord | None:
    """The image that has this name, None if there is none; no id, and no beginning of one, is a name."""
    try:
        references = meaning(name)
    except BadInput:
        return None
    for reference in references:
        wanted = reference.canonical
        for record in images.values():
            if wanted in (record.digests if reference.digest else record.tags):
                return record
    return None


def merge(
    images: Mapping[ImageId, ImageRecord], new: ImageRecord, *, pinned: Iterable[str]
) -> tuple[ImageRecord, list[ImageRecord]]:
    """The record to keep for `new`, and the other records that lose a tag to it.

    Names add up: an image that is there already keeps those it has. A tag belongs to one image.
    """
    patterns = tuple(pinned)
    old = images.get(new.id)
    if old is not None:
        new = replace(
            together(old, new), created_at=old.created_at, annotations={**old.annotations, **new.annotations}
        )
    new = replace(new, pinned=is_pinned(new, patterns))
    taken = frozenset(new.tags)
    losers = []
    for record in images.values():
        if record.id != new.id and taken & frozenset(record.tags):
            left = replace(record, tags=tuple(tag for tag in record.tags if tag not in taken))
            losers.append(replace(left, pinned=is_pinned(left, patterns)))
    return new, losers


def together(old: ImageRecord, new: ImageRecord) -> ImageRecord:
    """`new` with the names of both, and with why each of them was let in."""
    names = replace(new, tags=_union(old.tags, new.tags), digests=_union(old.digests, new.digests))
    return replace(names, admissions=_admissions(old.admissions, names))


def is_pinned(record: ImageRecord, patterns: tuple[str, ...]) -> bool:
    """Whether a name of the image fits one of the shell patterns."""
    return any(fnmatchcase(name, pattern) for name in (*record.tags, *record.digests) for pattern in patterns)


def names_of(reference: Reference, digest: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tags and digests that a pull of `reference` gives, `digest` being that of what the name led to."""
    digests = (f"{reference.name}@{digest}",)
    return (() if reference.digest else (reference.canonical,)), digests


def _union(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))


def _admissions(old: tuple[Admission, ...], new: ImageRecord) -> tuple[Admission, ...]:
    """Those of the names that the image has, the newest of each, and of the archives that it came out of."""
    names = {*new.tags, *new.digests}
    found = {(one.source, one.name): one for one in (*old, *new.admissions)}
    return tuple(one for one in found.values() if one.source != DOCKER or one.name in names)
