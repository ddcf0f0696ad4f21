"""Pulls, imports and removals as sweeps play them: what stands before, the act, what may be there after.

An image stays meanwhile that has a layer in common with the one that comes and goes.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from oci.layers.erofs import IndexBuilder
from shim.images.documents import digests_of
from shim.images.store import ImageStore
from shim.records import ImageRecord
from tests.component.images.archives import entry, write_layout
from tests.component.images.rig import everything, files
from tests.doubles.registry import Pushed, Registry, digest_of, tar_of

VERBS = ("pull", "import", "remove")


def _described() -> bytes:
    """A layer that says what /tmp looks like; one that only has a file there must not change that."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in (".", "tmp"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(member)
        member = tarfile.TarInfo("base")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"base"))
    return buffer.getvalue()


BASE = _described()
OWN = tar_of({"tmp/own": b"own"})
OTHER = tar_of({"other": b"o" * 5000})
TREES = {
    digest_of(BASE): {"base": b"base"},
    digest_of(OWN): {"tmp/own": b"own"},
    digest_of(OTHER): {"other": b"o" * 5000},
}


@dataclass(slots=True, kw_only=True)
class Scene:
    """What the registry has under the tag was another image when the store pulled it last, and moves."""

    double: Registry
    archive: Path
    stays: Pushed = field(init=False)
    old: Pushed = field(init=False)
    new: Pushed = field(init=False)

    def __post_init__(self) -> None:
        self.stays = self.double.push("stays", "1", [BASE, OTHER])
        self.old = self.double.push("app", "1", [BASE])
        self._moved(old=False)
        write_layout(self.double, self.archive, entry(self.double, self.new.manifest))

    def _moved(self, *, old: bool) -> None:
        pushed = self.double.push("app", "1", [BASE] if old else [BASE, OWN, OTHER])
        if not old:
            self.new = pushed

    @property
    def name(self) -> str:
        return self.double.reference("app:1")

    async def set_up(self, store: ImageStore) -> None:
        """Once for each store that is empty."""
        await store.pull(self.double.reference("stays:1"))

    async def prepare(self, store: ImageStore, verb: str) -> None:
        """Bring about what the verb needs: the image itself, or an older one of its name."""
        await store.remove(self.new.config)
        self._moved(old=True)
        await store.pull(self.name)
        self._moved(old=False)
        if verb == "remove":
            await self.act(store, "pull")

    async def act(self, store: ImageStore, verb: str) -> None:
        match verb:
            case "pull":
                await store.pull(self.name)
            case "import":
                await store.import_archive(self.archive, names=[self.name])
            case "remove":
                await store.remove(self.name)

    def reached(self, store: ImageStore, verb: str) -> bool:
        found = store.find(self.name)
        return found is None if verb == "remove" else found is not None and found.id == self.new.config

    def check(self, store: ImageStore, verb: str) -> None:
        """What is shown is whole, and nothing is half-way between before and after."""
        whole(store, TREES)
        there = {image.id: image for image in store.all()}
        stays = there.pop(self.stays.config)
        assert stays.tags == (self.double.reference("stays:1"),)
        old = there.pop(self.old.config, None)
        new = there.pop(self.new.config, None)
        assert not there
        tags = {"old": old.tags if old else None, "new": new.tags if new else None}
        before, after = {"old": (self.name,), "new": None}, {"old": (), "new": (self.name,)}
        gone, there_again = {"old": (), "new": None}, after
        assert tags in ((before, after) if verb != "remove" else (gone, there_again)), tags

    async def clear(self, store: ImageStore) -> None:
        """Remove all but what stays."""
        for image in store.all():
            if image.id != self.stays.config:
                await store.remove(image.id)


def whole(store: ImageStore, trees: Mapping[str, dict[str, bytes]]) -> None:
    """Assert that every image that the store shows has all that it needs, and that all of it is right.

    `trees` has the files of each layer by diff id; a layer of the store's own making has none.
    """
    layout = store._layout
    for image in store.all():
        for document in digests_of(image):
            assert digest_of(layout.document(document).read_bytes()) == document
        for diff_id in image.layers:
            record = store._records.layers[diff_id]
            if record.form == "directory":
                assert files(layout.tree(diff_id)) == trees.get(diff_id, {})
                continue
            tar = layout.tar(diff_id).read_bytes()
            assert digest_of(tar) == diff_id
            builder = IndexBuilder()
            builder.receive(tar)
            assert builder.finish() == layout.index(diff_id).read_bytes()
            if record.blob:
                assert digest_of(layout.blob(diff_id).read_bytes()) == record.blob
    tags = [tag for image in store.all() for tag in image.tags]
    assert len(tags) == len(set(tags))


def leftovers(store: ImageStore, home: Path) -> list[str]:
    """What lies in the store, is mounted or recorded, and belongs to no image; nothing is lent."""
    layout = store._layout
    wanted: set[Path] = set()
    trees: list[Path] = []
    images: tuple[ImageRecord, ...] = store.all()
    for image in images:
        wanted |= {layout.document(digest) for digest in digests_of(image)}
        for diff_id in image.layers:
            if store._records.layers[diff_id].form == "directory":
                trees.append(layout.tree(diff_id))
                wanted |= {layout.implied(diff_id), layout.blob(diff_id)}
            else:
                wanted |= set(layout.files(diff_id))
    there = [layout.root / name for name in everything(home)]
    extra = [p for p in there if p not in wanted and not any(p == t or t in p.parents for t in trees)]
    needed = {diff_id for image in images for diff_id in image.layers}
    records = [f"record of layer {diff_id}" for diff_id in store._records.layers if diff_id not in needed]
    loans = [f"loan {name}" for name in store._lending.loans]
    return sorted([*(os.path.relpath(path, layout.root) for path in extra), *records, *loans])
