"""The store held against its records, while pods run: every layer and document, and what no record knows.

A repair is made in place: who has a layer mounted has the very files that are healed (but `heal_files` of
another index). What runs on is never taken away; what images cease to want meanwhile is no finding. Belongs
to the event loop; reading is done by the process for layers, as many at a time as there are processors.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from oci.errors import Absent, CrispError
from oci.workload import ContainerId, ImageId
from shim.files import remove_tree
from shim.images import recovery
from shim.images.additional import AdditionalStore, AdditionalStores, Kept
from shim.images.checking import Checked, CheckLayer, Part
from shim.images.documents import digests_of, read_document, write_documents
from shim.images.healing import heal_files, renew_tree
from shim.images.intake import Intake, settle
from shim.images.keeping import Keeping
from shim.images.layers import EROFS
from shim.images.layout import Layout
from shim.images.lending import Lending
from shim.images.obtaining import Obtaining
from shim.images.persistence import Records
from shim.images.progress import LayerMeter
from shim.images.receive import Received
from shim.images.resolving import sha256
from shim.images.settings import StoreSettings
from shim.images.threads import Threads
from shim.records import ImageRecord, LayerRecord

_AT_ONCE: Final = max(1, min(4, os.cpu_count() or 1))
_EVERY: Final = 0.2  # seconds between two pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. What it touches by name; `repaired` says how, `failure` why not."""

    problem: str
    layer: str = ""  # diff id
    images: tuple[str, ...] = ()
    holders: tuple[ContainerId, ...] = ()  # containers, and "POD.WORD" of pods that mount an image
    repaired: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a check is. The last one has `done`."""

    read: int  # bytes
    total: int  # bytes that the records promise
    layers: int  # whose check has ended
    findings: tuple[Finding, ...] = ()  # new since the last picture
    done: bool = False


class Fsck:
    """Looks, tells, and with `fix` repairs."""

    def __init__(
        self,
        layout: Layout,
        records: Records,
        settings: StoreSettings,
        threads: Threads,
        intake: Intake,
        lending: Lending,
        keeping: Keeping,
        obtaining: Obtaining,
        additional: AdditionalStores,
    ) -> None:
        self._layout = layout
        self._records = records
        self._settings = settings
        self._threads = threads
        self._intake = intake
        self._lending = lending
        self._keeping = keeping
        self._obtaining = obtaining
        self._additional = additional
        self._one = asyncio.Lock()

    async def run(self, *, fix: bool) -> AsyncGenerator[Progress, None]:
        """One check at a time; a second waits for the first. Ended early, it stops reading at once."""
        async with self._one:
            findings: list[Finding] = []
            told = ended = 0
            meters: list[LayerMeter] = []
            await self._additional.look()
            findings += [_of_store(store) for store in self._additional.stores if store.problem]
            others = [
                Kept(record=record, layout=store.layout)
                for store in self._additional.stores
                for record in store.layers.values()
            ]
            ours = [Kept(record=record, layout=self._layout) for record in self._records.layers.values()]
            wanted = sorted((*ours, *others), key=lambda kept: -kept.record.size)
            total = sum(kept.record.size + kept.record.blob_size for kept in wanted)
            for image in tuple(self._records.images.values()):
                findings += await self._document(image, fix=fix)
            slots = asyncio.Semaphore(_AT_ONCE)

            async def one(kept: Kept) -> None:
                nonlocal ended
                async with slots:
                    meter = LayerMeter(kept.record.diff_id, kept.record.size)
                    meters.append(meter)
                    if kept.layout == self._layout:
                        found = await self._layer(kept.record.diff_id, meter, fix=fix)
                    else:
                        found = await self._of_another(kept, meter)
                    if found is not None:
                        findings.append(found)
                    ended += 1

            working = asyncio.gather(*(one(kept) for kept in wanted))
            try:
                while not (await asyncio.wait({working}, timeout=_EVERY))[0]:
                    news, told = tuple(findings[told:]), len(findings)
                    read = sum(meter.received for meter in meters)
                    yield Progress(read=read, total=total, layers=ended, findings=news)
                working.result()
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            findings += await self._strays(fix=fix)
            yield Progress(
                read=sum(meter.received for meter in meters),
                total=total,
                layers=ended,
                findings=tuple(findings[told:]),
                done=True,
            )

    async def _document(self, image: ImageRecord, *, fix: bool) -> list[Finding]:
        """The image's configuration and manifest."""
        found = []
        for digest in sorted(digests_of(image)):
            path = self._layout.document(digest)
            try:
                body = await self._threads.do(read_document, self._layout, digest)
                problem = "" if sha256(body) == digest else f"{path}: its digest is {sha256(body)}"
            except CrispError as failure:
                problem = failure.message
            now = self._records.images.get(ImageId(image.id))
            if not problem or now is None or digest not in digests_of(now):  # removed while it was read
                continue
            finding: Finding | None = Finding(problem=problem, images=_names(now))
            if fix:
                finding = await self._repair_document(now, digest, problem)
            if finding is not None:
                found.append(finding)
        return found

    async def _repair_document(self, image: ImageRecord, digest: str, problem: str) -> Finding | None:
        """None where the image was removed meanwhile."""
        finding = Finding(problem=problem, images=_names(image))
        try:
            documents, failure = await self._obtaining.documents(image), ""
        except CrispError as error:
            documents, failure = {}, error.message
        async with self._keeping.still():
            now = self._records.images.get(ImageId(image.id))
            if now is None or digest not in digests_of(now):
                return None
            if failure:
                return replace(finding, failure=failure)
            wanted = {name: body for name, body in documents.items() if name in digests_of(now)}
            try:
                if digest not in wanted:
                    raise Absent(f"image {image.id}: its registry has another manifest by now")
                await self._threads.do(write_documents, self._layout, wanted, f"image {image.id}")
            except CrispError as error:
                return replace(finding, failure=error.message)
        return replace(finding, repaired="fetched again")

    async def _layer(self, diff_id: str, meter: LayerMeter, *, fix: bool) -> Finding | None:
        """None where nothing is wrong, or nobody wants the layer any more."""
        with self._intake.wanting((diff_id,)):
            await self._intake.gone(diff_id)
            record = self._records.layers.get(diff_id)
            if record is None:
                return None
            try:
                checked, failure = await self._intake.check(_job(record, self._layout), meter), ""
                if checked.seal:
                    await self._records.put(replace(record, seal=checked.seal))
            except CrispError as error:
                checked, failure = Checked(part=Part.NOTHING, problem=error.message, read=0), error.message
            if not checked.problem or not self._concerns(record):
                return None
            images = self._obtaining.images_of(diff_id)
            finding = Finding(
                problem=checked.problem,
                layer=diff_id,
                images=tuple(name for image in images for name in _names(image)),
                holders=self._lending.users(diff_id),
                failure=failure,
            )
            if not fix or failure:
                return finding
            try:
                return replace(finding, repaired=await self._repair(record, checked))
            except CrispError as error:
                return replace(finding, failure=error.message) if self._concerns(record) else None

    async def _of_another(self, kept: Kept, meter: LayerMeter) -> Finding | None:
        """A layer of an additional store, whose repair is the work of the daemon that fills it."""
        diff_id = kept.record.diff_id
        try:
            problem = (await self._intake.check(_job(kept.record, kept.layout), meter)).problem
        except CrispError as error:
            problem = error.message
        if not problem:
            return None
        return Finding(
            problem=problem,
            layer=diff_id,
            images=tuple(name for image in self._obtaining.images_of(diff_id) for name in _names(image)),
            holders=self._lending.users(diff_id),
            failure=f"the additional store {kept.layout.root.parent} is only read",
        )

    def _concerns(self, record: LayerRecord) -> bool:
        """Whether the layer is still the one that was looked at, and of an image or held."""
        now = self._records.layers.get(record.diff_id)
        if now is None or now.created_at != record.created_at:
            return False
        return bool(self._obtaining.images_of(record.diff_id) or self._lending.users(record.diff_id))

    async def _repair(self, record: LayerRecord, checked: Checked) -> str:
        """How it was done. Raises CrispError."""
        if checked.part is Part.BLOB:
            await self._threads.do(self._layout.blob(record.diff_id).unlink, missing_ok=True)
            await self._records.put(replace(record, blob="", blob_size=0))
            return "removed: it is kept for re-export alone"
        if checked.part is Part.INDEX:
            received, how = await self._obtaining.from_tar(record), "made anew from the layer"
        else:
            received, how = await self._obtaining.again(record), "fetched again"
        if record.form == EROFS and received.seal != record.seal and self._lending.users(record.diff_id):
            how += "; what is mounted keeps what it had"
        await settle(self._put_back(record, received))
        now = self._records.layers[record.diff_id]
        checked = await self._intake.check(_job(now, self._layout), LayerMeter("", 0))
        return how if not checked.problem else f"{how}, and damaged again: {checked.problem}"

    async def _put_back(self, record: LayerRecord, received: Received) -> None:
        if record.form == EROFS:
            new = await self._threads.do(heal_files, self._layout, record, received)
        else:
            isolate = self._settings.isolate_unpack
            new = await renew_tree(self._layout, self._threads, record, received, isolate=isolate)
        await self._records.put(new)

    async def _strays(self, *, fix: bool) -> list[Finding]:
        """What lies in the store and no record knows."""
        grave = self._layout.fresh(".gone")
        found: list[Finding] = []
        try:
            async with self._keeping.still():
                found = await self._set_aside(grave, fix=fix)
            await self._threads.do(remove_tree, grave)
        except (OSError, CrispError) as failure:
            found = found or [Finding(problem=f"{self._layout.root}: looking for what no record knows")]
            return [replace(one, repaired="", failure=str(failure)) for one in found]
        return found

    async def _set_aside(self, grave: Path, *, fix: bool) -> list[Finding]:
        """With images kept still. What a pull commits after the look is never taken away. Raises OSError."""
        layout = self._layout
        seen = await self._threads.do(recovery.look, layout, ())
        known = {*self._records.layers, *self._intake.wanted(), *self._lending.layers()}
        trees = {layout.tree(diff_id).name for diff_id in known}
        files = sorted(seen.files - known)
        lost_trees = sorted(seen.trees - trees)
        lost_documents = seen.documents.difference(*map(digests_of, self._records.images.values()))
        found = [
            Finding(problem=f"{layout.layers}: files of {diff_id}, which no record knows")
            for diff_id in files
        ]
        found += [Finding(problem=f"{layout.lower / name}: no record knows it") for name in lost_trees]
        found += [
            Finding(problem=f"{layout.document(digest)}: no image needs it")
            for digest in sorted(lost_documents)
        ]
        if not fix or not found:
            return found
        plan = recovery.Plan(files=tuple(files), trees=tuple(lost_trees), documents=lost_documents)
        with self._intake.going(*files, *lost_trees):
            try:
                await self._threads.do(recovery.set_aside, layout, plan, grave)
            except OSError as failure:
                return [replace(one, failure=str(failure)) for one in found]
        return [replace(one, repaired="removed") for one in found]


def _job(record: LayerRecord, layout: Layout) -> CheckLayer:
    return CheckLayer(
        layout=layout,
        diff_id=record.diff_id,
        erofs=record.form == EROFS,
        seal=record.seal,
        blob=record.blob,
        what=f"layer {record.diff_id}",
    )


def _of_store(store: AdditionalStore) -> Finding:
    return Finding(problem=f"additional store {store.directory}: {store.problem}", failure="it is only read")


def _names(image: ImageRecord) -> tuple[str, ...]:
    return image.tags or image.digests[:1] or (image.id,)
