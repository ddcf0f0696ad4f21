"""Layers come in: each fetched and made ready once, whoever wants it, from a registry or an archive.

Owns the layers on their way: who waits for which, how many at a time, and that none is collected between
its arrival and the record of the image that wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from oci.errors import CrispError, Full
from oci.manifest import Descriptor
from shim.images import layers, partial
from shim.images.additional import AdditionalStores
from shim.images.checking import Checked, CheckLayer
from shim.images.fetching import Job, MadeLayer, RegistryLayer
from shim.images.flights import Flights
from shim.images.layer_process import LayerProcess
from shim.images.layout import Layout, hexadecimal
from shim.images.persistence import Records
from shim.images.progress import LayerMeter, Phase, PullMeter
from shim.images.receive import Received
from shim.images.resolving import sha256
from shim.images.settings import Limits, StoreSettings
from shim.images.threads import Threads
from shim.records import LayerRecord

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A layer to get, and how."""

    diff_id: str
    blob: Descriptor
    job: Job


def made_here(tar: bytes, layout: Layout, limits: Limits, *, what: str) -> Wanted:
    """A layer of our own making, as one that is wanted."""
    diff_id = sha256(tar)
    return Wanted(
        diff_id=diff_id,
        blob=Descriptor(media_type="", digest=diff_id, size=len(tar)),
        job=MadeLayer(tar=tar, diff_id=diff_id, layout=layout, limits=limits, what=f"{what}: directories"),
    )


class Intake:
    """Belongs to the event loop."""

    def __init__(
        self,
        layout: Layout,
        threads: Threads,
        settings: StoreSettings,
        records: Records,
        additional: AdditionalStores,
    ) -> None:
        self._layout = layout
        self._threads = threads
        self._records = records
        self._additional = additional
        self._process = LayerProcess(layout, threads)
        self._slots = asyncio.Semaphore(settings.transfer.parallel)
        self._per_image = settings.transfer.layers
        self._isolate = settings.isolate_unpack
        self._flights: Flights[str, LayerRecord] = Flights()
        self._meters: dict[str, LayerMeter] = {}
        self._wanted: Counter[str] = Counter()
        self._going: dict[str, asyncio.Event] = {}
        self._partials: dict[str, int] = {}
        self.form = layers.EROFS
        self.fetched = 0
        """Compressed bytes that came from registries, also such as were given up."""

    def wanted(self) -> frozenset[str]:
        """Diff ids that must not be collected: an image that is being made wants them."""
        return frozenset(self._wanted)

    @contextlib.contextmanager
    def wanting(self, diff_ids: Iterable[str]) -> Iterator[None]:
        """Keep these layers from being collected meanwhile."""
        held = tuple(diff_ids)
        self._wanted.update(held)
        try:
            yield
        finally:
            self._wanted.subtract(held)
            for diff_id in held:
                if not self._wanted[diff_id]:
                    del self._wanted[diff_id]

    @contextlib.contextmanager
    def going(self, *names: str) -> Iterator[None]:
        """Layers, by diff id or tree, are being removed: who wants one waits until it has gone.

        It is fetched anew then.
        """
        gone, held = asyncio.Event(), {self._layout.tree(name).name for name in names}
        self._going.update(dict.fromkeys(held, gone))
        try:
            yield
        finally:
            for name in held:
                del self._going[name]
            gone.set()

    async def gone(self, diff_id: str) -> None:
        """Wait while the layer is being removed."""
        while (gone := self._going.get(self._layout.tree(diff_id).name)) is not None:
            await gone.wait()

    @property
    def partial_bytes(self) -> int:
        """Bytes on disk of what came of layers that did not come to their end."""
        return sum(self._partials.values())

    @property
    def partial_files(self) -> int:
        return len(self._partials)

    async def look_at_partials(self) -> None:
        """Count what earlier pulls have left."""
        self._partials = await self._threads.do(partial.sizes, self._layout)

    async def remove_partials(self, *, older: float = partial.LASTING, dry: bool = False) -> dict[str, int]:
        """Remove what earlier pulls have left and nobody resumes; the bytes of each file that goes."""
        if not self._partials:
            return {}
        gone = await self._threads.do(partial.remove_idle, self._layout, older=older, dry=dry)
        await self.look_at_partials()
        return gone

    async def ensure(self, wanted: Sequence[Wanted], meter: PullMeter | None, *, what: str) -> None:
        """Have all these layers in the store. A failure ends the others that nobody else waits for."""
        slots = asyncio.Semaphore(self._per_image)
        unique = {layer.diff_id: layer for layer in wanted}

        async def one(layer: Wanted) -> None:
            async with slots:
                await self._one(layer, meter, what)

        async with _group() as start:
            for layer in unique.values():
                start(one(layer))

    async def _one(self, layer: Wanted, meter: PullMeter | None, what: str) -> None:
        own = LayerMeter(layer.blob.digest, layer.blob.size)
        shown = self._meters.get(layer.diff_id, own)
        if meter is not None:
            meter.add(shown)
        await self.gone(layer.diff_id)
        if layer.diff_id in self._records.layers or await self._elsewhere(layer.diff_id):
            own.received, own.phase = own.total, Phase.SHARED
            return
        for again in (True, False):
            joined = layer.diff_id in self._flights
            try:
                await self._flights.join(layer.diff_id, lambda: self._make(layer, shown, what))
            except (CrispError, OSError):
                # another pull's credentials or mirror may have been the reason: once more with our own
                if not (joined and again):
                    raise
            else:
                shown.received, shown.phase = shown.total, Phase.DONE
                return

    async def _elsewhere(self, diff_id: str) -> bool:
        """Whether an additional store has the layer, so that it need not come."""
        if self._additional.kept(diff_id) is None:
            return False
        try:
            await self._additional.check((diff_id,))
        except CrispError as failure:
            log.warning("a layer is fetched that should be there", extra={"reason": str(failure)})
            return False
        return True

    async def _make(self, layer: Wanted, meter: LayerMeter, what: str) -> LayerRecord:
        self._meters[layer.diff_id] = meter
        try:
            async with self._slots:
                return await self._receive(layer, meter, what)
        except Full:
            await settle(self._make_room())
            raise
        finally:
            self._meters.pop(layer.diff_id, None)

    async def _receive(self, layer: Wanted, meter: LayerMeter, what: str) -> LayerRecord:
        try:
            received = await self._process.run(layer.job, meter)
        except BaseException:
            await settle(self.look_at_partials())
            raise
        finally:
            if isinstance(layer.job, RegistryLayer):
                self.fetched += meter.received - meter.kept
        self._partials.pop(hexadecimal(layer.blob.digest), None)
        meter.phase = Phase.UNPACKING
        record: LayerRecord | None = None
        try:
            record = await layers.keep(
                self._layout,
                self._threads,
                layer.diff_id,
                received,
                form=self.form,
                isolate=self._isolate,
                what=what,
            )
            await self._records.put(record)
        except BaseException:
            await settle(self._undo(layer.diff_id, record))
            raise
        meter.phase = Phase.DONE
        return record

    async def receive(self, job: Job, meter: LayerMeter) -> Received:
        """A layer in temporary files, which are the caller's; it does not become one of the store."""
        async with self._slots:
            return await self._process.run(job, meter)

    async def check(self, job: CheckLayer, meter: LayerMeter) -> Checked:
        """What is wrong with a stored layer."""
        return await self._process.check(job, meter)

    async def _make_room(self) -> None:
        await self.look_at_partials()
        await self.remove_partials(older=0)

    async def _undo(self, diff_id: str, record: LayerRecord | None) -> None:
        if record is not None:
            try:
                # also where it is not to be seen: it may be on its way to the disk
                await self._records.delete(record)
            except CrispError:
                if diff_id in self._records.layers:
                    return  # whole and known: collected when the disk writes again
        await self._threads.do(layers.remove_files, self._layout, diff_id)

    def coming(self) -> AbstractContextManager[None]:
        """Layers will be wanted meanwhile."""
        return self._process.coming()

    async def close(self) -> None:
        await self._flights.close()
        await self._process.close()


async def settle(work: Coroutine[Any, Any, T]) -> T:
    """Do something to its end although the caller is being cancelled; the cancel is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:
            if cancelled is None:
                raise
    if cancelled is not None:
        raise cancelled
    return task.result()


@contextlib.asynccontextmanager
async def _group() -> AsyncIterator[Callable[[Awaitable[None]], None]]:
    """A task group that raises the first failure itself, not a group of one."""
    tasks: list[asyncio.Future[None]] = []
    try:
        yield lambda work: tasks.append(asyncio.ensure_future(work))
        if tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
