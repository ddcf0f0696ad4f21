"""What another runtime's store has, read offline: what both kinds (containerd's, Docker's) are told with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oci.errors import BadInput
from oci.reference import Reference, parse
from oci.workload import ImageId
from shim.images.intake import Wanted
from shim.images.resolving import Resolved


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What an image is made of, and how to get its layers."""

    resolved: Resolved
    wanted: tuple[Wanted, ...]
    digests: tuple[str, ...]  # "NAME@DIGEST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One image of the store. `whole` is None where it cannot be had, and `problem` says why."""

    names: tuple[str, ...]
    digest: str  # what the store knows it by
    size: int  # bytes of its layers there
    whole: Whole | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came of one image: its id here, "" with `problem`; with neither it was only looked at."""

    names: tuple[str, ...]
    digest: str
    size: int
    image_id: ImageId | None = None
    problem: str = ""


def tags_of(names: Sequence[str]) -> tuple[str, ...]:
    """Those that name a tag, in full form."""
    return tuple(dict.fromkeys(one.canonical for one in _references(names) if not one.digest))


def digests_of(names: Sequence[str]) -> tuple[str, ...]:
    """Those that name a digest, in full form."""
    return tuple(dict.fromkeys(one.canonical for one in _references(names) if one.digest))


def _references(names: Sequence[str]) -> list[Reference]:
    found = []
    for name in names:
        try:
            found.append(parse(name))
        except BadInput:
            continue  # an id, or what only the other store calls a name
    return found


def chosen(offers: Sequence[Offer], wanted: Sequence[str], what: str) -> list[Offer]:
    """Those that are asked for by name, id or digest; all, when nothing is asked for. Raises BadInput."""
    if not wanted:
        return list(offers)
    found: dict[str, Offer] = {}
    for name in wanted:
        fitting = [offer for offer in offers if _means(name, offer)]
        if not fitting:
            raise BadInput(f"{what}: there is no image {name[:200]!r}; --dry-run lists what there is")
        found.update({offer.digest: offer for offer in fitting})
    return list(found.values())


def _means(name: str, offer: Offer) -> bool:
    if name in offer.names:
        return True
    bare = name.removeprefix("sha256:")
    known = [offer.digest] + ([offer.whole.resolved.image_id] if offer.whole is not None else [])
    if len(bare) >= 12 and any(one.removeprefix("sha256:").startswith(bare) for one in known):
        return True
    try:
        wanted = parse(name).canonical
    except BadInput:
        return False
    return wanted in tags_of(offer.names) or wanted in digests_of(offer.names)


def read_small(path: Path, limit: int, what: str) -> bytes:
    """A file of at most `limit` bytes. Raises BadInput, also where it is not there."""
    try:
        with path.open("rb") as file:
            body = file.read(limit + 1)
    except OSError as failure:
        raise BadInput(f"{what}: {path}: {(failure.strerror or '').lower()}") from failure
    if len(body) > limit:
        raise BadInput(f"{what}: {path}: more than {limit} bytes")
    return body
