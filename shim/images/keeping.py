"""Images become known and cease to be: the record is the first thing that goes and the last that comes.

One change at a time, under one lock; fetching layers is not part of it (`intake.py`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oci.errors import BadInput, CrispError
from oci.workload import ContainerId, ImageId
from shim.files import remove_tree, sync_directory
from shim.images import layers
from shim.images.catalogue import merge
from shim.images.documents import digests_of, remove_documents, write_documents
from shim.images.holdings import Holdings
from shim.images.intake import Intake, Wanted, made_here, settle
from shim.images.layout import Layout
from shim.images.lending import Lending, Loan, stack_order
from shim.images.parents import LayerView, must_look, read_implied, repair_tar
from shim.images.persistence import Records
from shim.images.progress import PullMeter
from shim.images.receive import disk_failure
from shim.images.resolving import Resolved
from shim.images.settings import StoreSettings
from shim.images.threads import Threads
from shim.records import Admission, ImageRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Names:
    """What an image is to be called: "NAME:TAG" and "NAME@DIGEST"."""

    tags: tuple[str, ...]
    digests: tuple[str, ...]


class Keeping:
    """Belongs to the event loop of one store."""

    def __init__(
        self,
        layout: Layout,
        records: Records,
        settings: StoreSettings,
        threads: Threads,
        intake: Intake,
        lending: Lending,
        holdings: Holdings,
    ) -> None:
        self._layout = layout
        self._records = records
        self._settings = settings
        self._threads = threads
        self._intake = intake
        self._lending = lending
        self._holdings = holdings
        self._lock = asyncio.Lock()
        self._graves: set[asyncio.Future[None]] = set()
        self._owed: set[ContainerId] = set()
        self._left: set[str] = set()  # layers that could not be removed, or of which files are left

    def still(self) -> asyncio.Lock:
        """Held, no image becomes known or ceases to be, and no document is written or removed."""
        return self._lock

    async def close(self) -> None:
        """Let the change that is under way end, and wait until what was removed has gone from the disk."""
        async with self._lock:
            pass
        await asyncio.gather(*self._graves, return_exceptions=True)

    async def take_in(
        self,
        resolved: Resolved,
        wanted: Sequence[Wanted],
        names: Names,
        admission: Admission,
        annotations: Mapping[str, str],
        meter: PullMeter | None,
        what: str,
    ) -> ImageRecord:
        """Get the layers, then make the image known: its record is the last thing written."""
        if meter is not None:
            meter.stage = "layers"
        limit = self._settings.limits.image
        if (announced := sum(layer.blob.size for layer in wanted)) > limit:
            raise BadInput(f"{what}: layers of {announced} bytes, the limit is {limit}")
        done = False
        try:
            with self._intake.wanting(resolved.config.diff_ids):
                await self._intake.ensure(wanted, meter, what=what)
                kept = sum(self._holdings.kept(layer.diff_id).record.size for layer in wanted)
                if kept > limit:
                    raise BadInput(f"{what}: layers of {kept} bytes uncompressed, the limit is {limit}")
                if meter is not None:
                    meter.stage = "commit"
                repair = await self._repair(resolved.config.diff_ids, what)
                diff_ids = (*resolved.config.diff_ids, *((repair.diff_id,) if repair else ()))
                with self._intake.wanting(diff_ids):
                    if repair is not None:
                        await self._intake.ensure((repair,), None, what=what)
                    record = await settle(
                        self._commit(resolved, diff_ids, names, admission, annotations, what)
                    )
                done = True
                return record
        finally:
            if not done:
                await settle(self.collect())

    async def _repair(self, diff_ids: tuple[str, ...], what: str) -> Wanted | None:
        """The layer that must stand on top of these, where directories of them would look wrong."""
        order = stack_order(diff_ids)
        layouts = [self._holdings.layout_of(layer) for layer in order]
        implied = await self._threads.do(
            lambda: [read_implied(layout, layer) for layout, layer in zip(layouts, order, strict=True)]
        )
        if not must_look(implied):
            return None
        borrower = ContainerId(f"repair-{secrets.token_hex(8)}")
        loan = Loan(image_id=ImageId(""), layers=order)
        try:
            lower = await self._lending.lend(borrower, loan)
            views = [
                LayerView(top=Path(top), implied=paths)
                for top, paths in zip(reversed(lower), implied, strict=True)
            ]
            tar = await self._threads.do(repair_tar, views)
        except OSError as failure:
            raise disk_failure(failure, self._layout.lent_file(borrower), what) from failure
        finally:
            await settle(self._give_back(borrower))
        return None if tar is None else made_here(tar, self._layout, self._settings.limits, what=what)

    async def _give_back(self, borrower: ContainerId) -> None:
        """End a loan of our own; where that fails, before the next collection."""
        try:
            await self._lending.take_back(borrower)
            self._owed.discard(borrower)
        except (OSError, CrispError) as failure:
            self._owed.add(borrower)
            log.warning("layers that a pull has looked at stay lent", extra={"reason": str(failure)})

    async def _commit(
        self,
        resolved: Resolved,
        diff_ids: tuple[str, ...],
        names: Names,
        admission: Admission,
        annotations: Mapping[str, str],
        what: str,
    ) -> ImageRecord:
        async with self._lock:
            before = self._records.images.get(resolved.image_id)
            known = self._records.layers
            ours = [known[diff_id] for diff_id in dict.fromkeys(diff_ids) if diff_id in known]
            size = await self._threads.do(write_documents, self._layout, resolved.documents, what)
            new = ImageRecord(
                id=resolved.image_id,
                tags=names.tags,
                digests=names.digests,
                manifest_digest=resolved.manifest_digest,
                config=resolved.config,
                layers=diff_ids,
                size=size + sum(layer.size for layer in ours),
                created_at=time.time_ns(),
                annotations=dict(annotations),
                admissions=(admission,),
            )
            record, losers = merge(self._records.images, new, pinned=self._settings.pinned)
            try:
                await self._threads.do(sync_directory, self._layout.layers)
            except OSError as failure:
                raise disk_failure(failure, self._layout.layers, what) from failure
            await self._records.put(record, *losers)  # a tag is at one image, whatever happens
            if before is not None:
                await self._threads.do(remove_documents, self._layout, self._unused(digests_of(before)))
            return record

    def _unused(self, documents: frozenset[str]) -> frozenset[str]:
        """Those of the documents that no image needs."""
        return documents.difference(*(digests_of(image) for image in self._records.images.values()))

    async def remove(self, find: Callable[[], ImageRecord | None]) -> bool:
        """Forget the image that `find` finds, and remove what nobody else wants of it; False if none is.

        Where the disk did not let go of a layer the image has gone all the same: the next removal takes that,
        also one that finds no image.
        """
        async with self._lock:
            record = find()
            if record is None:
                if self._left:  # by this removal's first try, perhaps
                    await self._collect()
                return False
            await self._records.delete(record)
            await self._threads.do(remove_documents, self._layout, self._unused(digests_of(record)))
            await self._collect()
            return True

    async def collect(self) -> None:
        """Remove layers that no image, container or running pull wants."""
        async with self._lock:
            await self._collect()

    async def _collect(self) -> None:
        """`collect` with the lock held.

        One layer that cannot be removed does not keep the others: it is logged, and its turn comes again with
        the next collection. Its record goes before its files, which the next start would take too.
        """
        for borrower in tuple(self._owed):
            await self._give_back(borrower)
        used: set[str] = set()
        for image in self._records.images.values():
            used.update(image.layers)
        for diff_id in dict.fromkeys((*self._records.layers, *self._left)):
            if diff_id in used or diff_id in self._intake.wanted() or diff_id in self._lending.layers():
                continue
            try:
                with self._intake.going(diff_id):
                    if (record := self._records.layers.get(diff_id)) is not None:
                        await self._records.delete(record)
                    grave = await self._threads.do(layers.bury, self._layout, diff_id)
                self._left.discard(diff_id)
                if grave is not None:
                    task = asyncio.ensure_future(self._threads.do(remove_tree, grave))
                    self._graves.add(task)
                    task.add_done_callback(self._buried)
            except (OSError, CrispError) as failure:
                self._left.add(diff_id)
                log.warning("a layer cannot be removed", extra={"layer": diff_id, "reason": str(failure)})
        self._left -= used  # pulled again
        await self._intake.remove_partials()

    def _buried(self, task: asyncio.Future[None]) -> None:
        self._graves.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.warning(
                "a removed layer still takes room until the next start", extra={"reason": str(failure)}
            )
