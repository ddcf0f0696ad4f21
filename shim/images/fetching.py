"""Getting one layer, as a value that is sent to the process that does it (`layer_worker.py`). Blocking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from oci.errors import Absent, BadInput, Busy, CrispError, Full
from oci.manifest import Descriptor
from oci.reference import Reference
from oci.registries.endpoint import PULL, Endpoint
from shim.images.cancellation import Cancellation
from shim.images.checking import Checked
from shim.images.connections import UNAVAILABLE, Unreachable
from shim.images.download import blocks
from shim.images.layout import Layout
from shim.images.partial import Partial, keeping
from shim.images.progress import LayerMeter, Phase
from shim.images.receive import Expected, Received, disk_failure, receive
from shim.images.routes import Route, Routes, Way
from shim.images.session import Corrupt, Session
from shim.images.settings import Limits, StoreSettings
from shim.images.sources import BLOCK, Content, Place


class Job(Protocol):
    """What a layer comes from. `what` begins every error."""

    @property
    def what(self) -> str: ...

    def run(self, cancellation: Cancellation, meter: LayerMeter, routes: Routes, /) -> Received | Checked:
        """The layer, verified, in temporary files; or what a check found. Raises CrispError, Cancelled.

        `routes` are those of the latest pulls: the layers of one share its token.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLayer:
    """A blob that is asked for endpoint after endpoint, also when one sends something else.

    What an earlier try has left of it is not asked for again.
    """

    pull: str  # which pull this belongs to, a word that no other has
    ways: tuple[Way, ...] = field(repr=False)
    reference: Reference
    first: Endpoint | None  # the one that had the manifest
    blob: Descriptor
    diff_id: str
    layout: Layout
    settings: StoreSettings = field(repr=False)
    what: str

    def run(self, cancellation: Cancellation, meter: LayerMeter, routes: Routes, /) -> Received:
        route = routes.of(self.pull, lambda: Route(self.reference, self.ways, self.settings))
        with keeping(self.layout, self.blob, small=self.settings.keep_compressed) as partial:
            try:
                received = self._receive(partial, route, cancellation, meter)
                if not self.settings.keep_compressed:
                    partial.done()
                    return received
                try:
                    return replace(received, blob=partial.keep(self.layout.fresh_blob(self.blob.digest)))
                except OSError as failure:
                    received.discard()
                    raise disk_failure(failure, self.layout.partial(self.blob.digest), self.what) from failure
            except CrispError as failure:
                if isinstance(failure, Full) or partial.whole:  # no byte that is still to come can help it
                    partial.forget()
                raise

    def _receive(
        self, partial: Partial, route: Route, cancellation: Cancellation, meter: LayerMeter
    ) -> Received:
        expected = Expected(diff_id=self.diff_id, digest=self.blob.digest, size=self.blob.size)
        begin = 0
        while True:
            attempt = Cancellation()  # a failing pipeline cancels its own reader, not the next try
            cancellation.add(attempt)
            sessions = route.sessions(attempt, capability=PULL, first=self.first)
            meter.phase = Phase.DOWNLOADING
            resumed = partial.kept

            def fetch(
                offset: int, sessions: list[Session] = sessions[begin:], attempt: Cancellation = attempt
            ) -> Iterator[bytes]:
                return blocks(
                    sessions,
                    self.blob,
                    offset=offset,
                    transfer=self.settings.transfer,
                    cancellation=attempt,
                    meter=meter,
                    what=self.what,
                )

            try:
                return receive(
                    partial.through(fetch, meter),
                    expected,
                    self.layout,
                    limits=self.settings.limits,
                    cancellation=attempt,
                    what=self.what,
                    durable=True,
                )
            except Corrupt:
                partial.forget()
                if resumed:  # it may have been what was kept: once more from the first byte
                    continue
                begin += 1
                if begin >= len(sessions):
                    raise
            except Absent as failure:
                if not self.blob.foreign:
                    raise
                raise BadInput(
                    f"{self.what}: a foreign layer, which this registry does not hold; it is not fetched from"
                    f" the places that the manifest names ({failure.message})"
                ) from failure
            except Unreachable as failure:
                raise Busy(failure.message, token=UNAVAILABLE) from failure
            finally:
                cancellation.remove(attempt)
                for session in sessions:
                    session.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLayer:
    """A file of an archive that the daemon has open."""

    place: Place | None
    expected: Expected
    layout: Layout
    limits: Limits
    archive: str
    name: str

    @property
    def what(self) -> str:
        return f"{self.archive}: {self.name[:200]}"

    def run(self, cancellation: Cancellation, meter: LayerMeter, _routes: Routes, /) -> Received:
        content = None if self.place is None else self.place.open()
        if content is None:
            raise BadInput(f"{self.archive}: {self.name[:200]!r} is missing in the archive")
        meter.total = content.size
        meter.phase = Phase.DOWNLOADING
        try:
            return receive(
                _blocks(content, meter, cancellation),
                self.expected,
                self.layout,
                limits=self.limits,
                cancellation=cancellation,
                what=self.what,
                durable=True,
            )
        finally:
            content.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeLayer:
    """A tar of our own making."""

    tar: bytes = field(repr=False)
    diff_id: str
    layout: Layout
    limits: Limits
    what: str

    def run(self, cancellation: Cancellation, _meter: LayerMeter, _routes: Routes, /) -> Received:
        return receive(
            (self.tar,),
            Expected(diff_id=self.diff_id),
            self.layout,
            limits=self.limits,
            cancellation=cancellation,
            what=self.what,
            durable=True,
        )


def _blocks(content: Content, meter: LayerMeter, cancellation: Cancellation) -> Iterator[bytes]:
    while block := content.read(BLOCK):
        cancellation.check()
        meter.received += len(block)
        yield block
