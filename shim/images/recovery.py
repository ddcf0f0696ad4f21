"""The store's start: what a crash or a power cut left half done goes, what is damaged is no longer promised.

`look` sees (blocking), `plan` decides (pure), `ImageStore.recover` applies.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from oci.workload import ImageId
from shim.files import make_private_directory, remove_tree
from shim.images import partial
from shim.images.documents import digests_of
from shim.images.layers import present
from shim.images.layout import Layout
from shim.records import ImageRecord, LayerRecord

_FILE = re.compile(r"([0-9a-f]{64})\.(?:tar|erofs|implied|blob)\Z")
_DOCUMENT = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What lies in the store's directory."""

    whole: frozenset[str]  # diff ids of records whose files are there
    files: frozenset[str]  # diff ids that have a file or a part of one
    trees: frozenset[str]  # names in `l`
    documents: frozenset[str]  # digests


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done: records to drop, files to remove."""

    images: tuple[ImageRecord, ...] = ()
    renamed: tuple[
        ImageRecord, ...
    ] = ()  # records to put: a tag moved and the crash came before its old image
    layers: tuple[LayerRecord, ...] = ()
    files: tuple[str, ...] = ()  # diff ids
    trees: tuple[str, ...] = ()  # names in `l`
    documents: frozenset[str] = frozenset()


def prepare(layout: Layout) -> None:
    """Make the directories, private, empty the temporary one, and remove what is too old to be resumed.

    Blocking. Raises OSError.
    """
    make_private_directory(layout.root)
    for directory in layout.directories():
        make_private_directory(directory, mode=0o755 if directory == layout.empty else 0o700)
    for left in layout.temporary.iterdir():
        remove_tree(left)
    for directory in layout.directories():
        for left in directory.glob(".*.tmp"):  # the atomic writer was interrupted
            left.unlink()
    partial.remove_idle(layout)


def look(layout: Layout, layers: Iterable[LayerRecord]) -> Seen:
    """Blocking: one listing a directory, two stats a layer."""
    files = {f"sha256:{found[1]}" for path in layout.layers.iterdir() if (found := _FILE.match(path.name))}
    documents = {f"sha256:{path.name}" for path in layout.documents.iterdir() if _DOCUMENT.match(path.name)}
    return Seen(
        whole=frozenset(record.diff_id for record in layers if present(layout, record)),
        files=frozenset(files),
        trees=frozenset(path.name for path in layout.lower.iterdir()),
        documents=frozenset(documents),
    )


def plan(
    seen: Seen,
    images: Mapping[ImageId, ImageRecord],
    layers: Mapping[str, LayerRecord],
    *,
    lent: frozenset[str],
    elsewhere: frozenset[str] = frozenset(),
    layout: Layout,
) -> Plan:
    """An image that lacks a layer or a document is no longer there: kubelet will ask for it again.

    Whole layers that an image or a container wants stay, also those of images that are dropped for another
    layer's sake: the next pull needs them. What has no record goes. `elsewhere` are layers of
    additional stores.
    """
    there = seen.whole | elsewhere
    broken = [
        image
        for image in images.values()
        if not digests_of(image) <= seen.documents or not there.issuperset(image.layers)
    ]
    gone = frozenset(image.id for image in broken)
    lost = [record for diff_id, record in layers.items() if diff_id not in seen.whole]
    wanted = lent.union(*(image.layers for image in images.values()))
    idle = [record for diff_id, record in layers.items() if diff_id in seen.whole and diff_id not in wanted]
    kept = frozenset(layers) - {record.diff_id for record in (*lost, *idle)}
    known = {layout.tree(diff_id).name for diff_id in kept | lent}
    documents: frozenset[str] = frozenset().union(
        *(digests_of(image) for image in images.values() if image.id not in gone)
    )
    return Plan(
        images=tuple(broken),
        renamed=_without_doubles([image for image in images.values() if image.id not in gone]),
        layers=(*lost, *idle),
        files=tuple(sorted(seen.files - kept)),
        trees=tuple(sorted(seen.trees - known)),
        documents=seen.documents - documents,
    )


def _without_doubles(images: list[ImageRecord]) -> tuple[ImageRecord, ...]:
    """The images that must give up a tag, since a newer one has it too."""
    taken: set[str] = set()
    changed = []
    for image in sorted(images, key=lambda image: image.created_at, reverse=True):
        left = tuple(tag for tag in image.tags if tag not in taken)
        if left != image.tags:
            changed.append(replace(image, tags=left))
        taken.update(left)
    return tuple(changed)


def clear(layout: Layout, plan: Plan) -> None:
    """Remove what the plan says, nothing of it being mounted or recorded any more. Blocking."""
    for diff_id in plan.files:
        for path in layout.files(diff_id):
            path.unlink(missing_ok=True)
    for name in plan.trees:
        grave = layout.fresh(".gone")
        (layout.lower / name).rename(grave)
        remove_tree(grave)
    for digest in plan.documents:
        layout.document(digest).unlink(missing_ok=True)


def set_aside(layout: Layout, plan: Plan, grave: Path) -> None:
    """Move what the plan names into `grave`, to be removed at leisure. Blocking, milliseconds."""
    grave.mkdir()
    paths = [path for diff_id in plan.files for path in layout.files(diff_id)]
    paths += [layout.lower / name for name in plan.trees]
    paths += [layout.document(digest) for digest in plan.documents]
    for number, path in enumerate(paths):
        with contextlib.suppress(FileNotFoundError):
            path.rename(grave / str(number))
