"""Additional image stores: state directories that others have filled, used where they lie and never written.

One that is missing or damaged, or does not answer (a network file system may not, for hours), is as if it
held nothing, and says why. Records are read from their copies beside the objects (`shim/state/mirror.py`):
a database would want to write. Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from oci.errors import Busy, Internal
from oci.workload import ImageId
from shim.images.documents import digests_of
from shim.images.layers import EROFS, NEEDS, present
from shim.images.layout import Layout
from shim.kernel.layered import offer_erofs
from shim.records import ImageRecord, LayerRecord
from shim.state.codec import Undecodable, decode
from shim.state.mirror import Mirror

T = TypeVar("T")

LIMIT: Final = 10.0
"""Seconds in which a store must answer."""

AGAIN: Final = 10.0
"""Seconds after which a store that has a problem is read once more, though no record of it has changed."""

ANNOTATION: Final = "crisp.additional-store"
"""Of an image that is not ours: the directory of the store that holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A stored layer, and the store that has its files."""

    record: LayerRecord
    layout: Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditionalStore:
    """What was seen of one. `problem` says what of it cannot be used, and why; the rest can."""

    directory: Path
    images: Mapping[ImageId, ImageRecord] = field(default_factory=dict)
    layers: Mapping[str, LayerRecord] = field(default_factory=dict)
    problem: str = ""
    stamp: tuple[int, ...] = ()
    seen: float = 0.0  # when all of it was read, by the monotonic clock

    @property
    def layout(self) -> Layout:
        return Layout(self.directory / "images")


class AdditionalStores:
    """Those of the configuration. An image or layer is taken from the first that has it."""

    def __init__(self, directories: Iterable[Path], *, own: Path, limit: float = LIMIT) -> None:
        self._own = own
        self._limit = limit
        self._stores = {
            path: AdditionalStore(directory=path, problem="not looked at") for path in directories
        }
        self._looks: dict[Path, asyncio.Future[AdditionalStore]] = {}

    @property
    def stores(self) -> tuple[AdditionalStore, ...]:
        """As they were when they were last looked at."""
        return tuple(self._stores.values())

    def kept(self, diff_id: str) -> Kept | None:
        for store in self._stores.values():
            if (record := store.layers.get(diff_id)) is not None:
                return Kept(record=record, layout=store.layout)
        return None

    async def look(self) -> list[AdditionalStore]:
        """See what has changed; the stores that have another problem than before.

        A look that has not come back is not begun again.
        """
        before = dict(self._stores)
        for path, known in self._stores.items():
            if path not in self._looks:
                self._looks[path] = _aside(partial(_look, path, known, self._own))
        if self._looks:
            await asyncio.wait(self._looks.values(), timeout=self._limit)
        for path, look in tuple(self._looks.items()):
            if look.done():
                del self._looks[path]
                self._stores[path] = _seen(path, look)
            else:
                self._stores[path] = AdditionalStore(directory=path, problem=_silent(self._limit))
        return [now for now in self.stores if now.problem not in ("", before[now.directory].problem)]

    async def check(self, layers: Iterable[str]) -> None:
        """That the files of layers that are to be mounted from here are there. Raises Busy, Internal.

        Nothing waits for a store that does not answer longer than the limit, and nobody else with it.
        """
        wanted = tuple(filter(None, map(self.kept, layers)))
        if not wanted:
            return
        look = _aside(partial(_first_lost, wanted))
        await asyncio.wait({look}, timeout=self._limit)
        if not look.done():
            silent = ", ".join(sorted({str(kept.layout.root.parent) for kept in wanted}))
            raise Busy(f"additional store {silent}: {_silent(self._limit)}")
        if (lost := look.result()) is not None:
            raise Internal(
                f"layer {lost.record.diff_id}: its files in the additional store {lost.layout.root.parent} "
                "are missing or cut short: pull the image again"
            )


def _seen(directory: Path, look: asyncio.Future[AdditionalStore]) -> AdditionalStore:
    """Whatever is wrong with a store, it is that store's matter."""
    if (failure := look.exception()) is not None:
        return AdditionalStore(directory=directory, problem=f"{type(failure).__name__}: {failure}")
    return look.result()


def _first_lost(wanted: Iterable[Kept]) -> Kept | None:
    """Blocking."""
    for kept in wanted:
        try:
            there = present(kept.layout, kept.record)
        except OSError:
            there = False
        if not there:
            return kept
    return None


def _silent(limit: float) -> str:
    return f"does not answer within {limit:.0f} s"


def _look(directory: Path, known: AdditionalStore, own: Path) -> AdditionalStore:
    """Blocking. What was seen last stays where nothing has changed and nothing was wrong."""
    try:
        mirror = Mirror(directory)
        stamp = tuple(mirror.path(kind, "x").parent.stat().st_mtime_ns for kind in ("image", "layer"))
        if known.stamp == stamp and (not known.problem or time.monotonic() - known.seen < AGAIN):
            return known
        if (directory / "images").samefile(own):
            return AdditionalStore(directory=directory, problem="it is this daemon's own store")
        return _read(directory, mirror, stamp)
    except OSError as failure:
        words = f"{failure.filename or directory}: {(failure.strerror or str(failure)).lower()}"
        return AdditionalStore(directory=directory, problem=words)


def _read(directory: Path, mirror: Mirror, stamp: tuple[int, ...]) -> AdditionalStore:
    layout, problems = Layout(directory / "images"), list[str]()
    layers = {layer.diff_id: layer for layer in _records(mirror, "layer", LayerRecord, problems)}
    for layer in tuple(layers.values()):
        if not present(layout, layer):
            problems.append(f"layer {layer.diff_id}: its files are missing or cut short")
            del layers[layer.diff_id]
    if (unusable := _unusable(layout, layers.values())) is not None:
        problems.append(unusable)
        layers = {diff_id: layer for diff_id, layer in layers.items() if layer.form != EROFS}
    images = {}
    for image in _records(mirror, "image", ImageRecord, problems):
        if lacking := [diff_id for diff_id in image.layers if diff_id not in layers]:
            problems.append(f"image {image.id}: layer {lacking[0]} is not there")
        elif lost := [name for name in digests_of(image) if not layout.document(name).exists()]:
            problems.append(f"image {image.id}: document {lost[0]} is not there")
        else:
            # Pinned, so that kubelet does not try to remove what cannot be removed.
            annotations = {**image.annotations, ANNOTATION: str(directory)}
            images[image.id] = replace(image, pinned=True, annotations=annotations)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return AdditionalStore(
        directory=directory,
        images=images,
        layers=layers,
        problem=f"{problems[0]}{more}" if problems else "",
        stamp=stamp,
        seen=time.monotonic(),
    )


def _records(mirror: Mirror, kind: str, cls: type[T], problems: list[str]) -> list[T]:
    found = []
    for row in mirror.rows_of(kind):
        if isinstance(row, Path):
            problems.append(f"{row}: record copy is damaged")
            continue
        try:
            found.append(decode(cls, json.loads(row.body)))
        except (ValueError, Undecodable) as failure:
            problems.append(f"{mirror.path(kind, row.id)}: {failure}")
    return found


def _unusable(layout: Layout, layers: Iterable[LayerRecord]) -> str | None:
    """Why layers of the EROFS form cannot be mounted from there, found by offering one to the kernel."""
    first = next((layer for layer in layers if layer.form == EROFS), None)
    if first is None:
        return None
    try:
        offer_erofs(layout.index(first.diff_id), device=layout.tar(first.diff_id))
    except OSError as failure:
        return f"layer {first.diff_id}: the kernel does not mount it: {failure.strerror}; it takes {NEEDS}"
    return None


def _aside(work: Callable[[], T]) -> asyncio.Future[T]:
    """Blocking work in a thread that keeps neither the loop's pools nor the daemon's end waiting."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, failure: Exception | None) -> None:
        if future.cancelled():
            return
        if failure is not None:
            future.set_exception(failure)
            future.exception()  # seen here: the caller may have given it up
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is the caller's
            failure = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, result, failure)

    thread = threading.Thread(target=run, name="crisp-additional", daemon=True)
    loop.run_in_executor(None, thread.start)  # which waits until it runs
    return future
