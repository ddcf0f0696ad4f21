"""Pulls: from a name to a record, each once whoever asks, bounded in time, with a picture of how it goes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Mapping

from oci.errors import Absent, BadInput, CrispError, Deadline
from oci.manifest import Platform
from oci.reference import parse
from oci.registries.short_names import is_short
from oci.registry_auth import Credentials
from shim.images.asking import Asker, Asking
from shim.images.cancellation import Cancellation
from shim.images.catalogue import by_reference, find, names_of
from shim.images.fetching import RegistryLayer
from shim.images.flights import Flights
from shim.images.holdings import Holdings
from shim.images.intake import Intake, Wanted
from shim.images.keeping import Keeping, Names
from shim.images.layout import Layout
from shim.images.persistence import Records
from shim.images.progress import DONE, PullMeter, PullProgress, PullTotals
from shim.images.resolving import Resolved, Unchanged, resolve_image, together
from shim.images.routes import Route
from shim.images.settings import StoreSettings
from shim.images.threads import Threads
from shim.images.trust.gate import Gate
from shim.records import ImageRecord

_REMEMBERED = 16


class Pulls:
    """What is pulled now; belongs to the event loop of the store whose rooms it is given."""

    def __init__(
        self,
        layout: Layout,
        node: Platform,
        *,
        records: Records,
        settings: StoreSettings,
        threads: Threads,
        asking: Asking,
        gate: Gate,
        intake: Intake,
        keeping: Keeping,
        holdings: Holdings,
    ) -> None:
        self._layout = layout
        self._node = node
        self._records = records
        self._settings = settings
        self._threads = threads
        self._asking = asking
        self._gate = gate
        self._intake = intake
        self._keeping = keeping
        self._holdings = holdings
        self._flights: Flights[tuple[str, bool, Asker], ImageRecord] = Flights()
        self._meters: list[PullMeter] = []
        self._begun = self._ok = self._cancelled = 0
        # The pictures of the latest pulls that ended well: a quick one would otherwise never be seen.
        self._ended: deque[PullProgress] = deque(maxlen=_REMEMBERED)

    async def close(self) -> None:
        """End what runs, and wait until it has cleaned up."""
        await self._flights.close()

    async def pull(
        self,
        reference: str,
        credentials: Credentials | None,
        *,
        annotations: Mapping[str, str],
        namespace: str,
    ) -> ImageRecord:
        """Fetch an image and make it ready. Equal pulls are one; the last caller that leaves ends it.

        The registry is always asked, so a caller without the right to an image does not get it from the
        store. `namespace` is that of the pod it is for: its auth file and policy count.

        Raises BadInput (reference, configuration, platform, limits, credentials refused), Absent (no such
        image at the registry), Untrusted (the node's policy), Busy (token RegistryUnavailable), Full (path),
        Internal.
        """
        wanted = parse(reference)
        if credentials is not None and credentials.empty:
            credentials = None
        asker = Asker(credentials=credentials, namespace=namespace)
        key = (str(wanted), is_short(reference), asker)
        return await self._flights.join(key, lambda: self._pull(reference, asker, annotations))

    def progress(self) -> tuple[PullProgress, ...]:
        """The latest pulls that ended well (stage "done"), then the running ones; each oldest first."""
        return (*self._ended, *(meter.snapshot() for meter in self._meters))

    def totals(self) -> PullTotals:
        ended = self._begun - len(self._meters)
        return PullTotals(
            ok=self._ok,
            failed=ended - self._ok - self._cancelled,
            cancelled=self._cancelled,
            received=self._intake.fetched,
        )

    async def explain(
        self, reference: str, credentials: Credentials | None, *, namespace: str
    ) -> tuple[str, ...]:
        """Who would be asked, and what the policy demands then: lines without a secret."""
        decision = await self._asking.decide(reference, Asker(credentials=credentials, namespace=namespace))
        policies = [
            await self._gate.explain(plan.reference, namespace) for plan in decision.plans if not plan.refusal
        ]
        return (*self._asking.explain(decision), *policies)

    async def _pull(self, reference: str, asker: Asker, annotations: Mapping[str, str]) -> ImageRecord:
        self._begun += 1
        meter = PullMeter(str(parse(reference)), self._begun)
        self._meters.append(meter)
        total = self._settings.transfer.total
        try:
            # A name, never the beginning of an id: that is not what is pulled.
            known = by_reference(reference, self._records.images, self._asking.meaning) is not None
            # Of a name that is known nothing is likely to be fetched.
            with contextlib.nullcontext() if known else self._intake.coming():
                async with asyncio.timeout(total):
                    record = await self._pull_metered(reference, asker, annotations, meter)
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        except TimeoutError:
            raise Deadline(
                f"image {meter.reference}: not here after {total:.0f} s (images.pull_timeout),"
                f" {meter.snapshot().received} bytes came in that time"
            ) from None
        finally:
            self._meters.remove(meter)
        meter.stage = DONE
        self._ok += 1
        self._ended.append(meter.snapshot())
        return record

    async def _pull_metered(
        self,
        reference: str,
        asker: Asker,
        annotations: Mapping[str, str],
        meter: PullMeter,
    ) -> ImageRecord:
        failures: list[CrispError] = []
        for plan in await self._asking.plans(reference, asker):
            try:
                await self._gate.before(plan.reference, asker.namespace)
                route = await self._asking.route(plan)
                return await self._pull_along(route, annotations, meter, asker.namespace)
            except (Absent, BadInput) as failure:
                # A short name may be of the next registry; one that does not answer could have had it.
                failures.append(failure)
        raise together(failures)

    async def _pull_along(
        self, route: Route, annotations: Mapping[str, str], meter: PullMeter, namespace: str
    ) -> ImageRecord:
        reference = route.reference
        cancellation = Cancellation()
        before = find(str(reference), self._records.images)
        if before is not None and not self._holdings.whole(before):
            before = None
        digests = frozenset(before.digests if before is not None else ())

        def known(digest: str) -> bool:
            return f"{reference.name}@{digest}" in digests

        try:
            resolved = await self._threads.run(
                cancellation,
                lambda: resolve_image(
                    route,
                    self._node,
                    limits=self._settings.limits,
                    cancellation=cancellation,
                    known=known if digests else None,
                ),
            )
        except Unchanged as unchanged:
            if (
                before is not None
                and await self._gate.admit_again(before, reference, unchanged.digest, namespace)
                and self._records.images.get(before.id) == before
            ):
                return before
            # removed or renamed meanwhile, or never judged as what it is now, or no longer trusted
            resolved = await self._threads.run(
                cancellation,
                lambda: resolve_image(
                    route, self._node, limits=self._settings.limits, cancellation=cancellation
                ),
            )
        if resolved.endpoint is not None:
            meter.endpoint, meter.origin = resolved.endpoint.url, resolved.endpoint.origin
        meter.credential_source = resolved.credential_source
        admission = await self._gate.admit(route, resolved, namespace)
        tags, named = names_of(reference, resolved.name_digest)
        wanted = self._wanted(route, resolved, f"image {reference}")
        return await self._keeping.take_in(
            resolved, wanted, Names(tags, named), admission, annotations, meter, f"image {reference}"
        )

    def _wanted(self, route: Route, resolved: Resolved, what: str) -> list[Wanted]:
        pull, ways = secrets.token_hex(8), route.ways
        layers_of = zip(resolved.manifest.layers, resolved.config.diff_ids, strict=True)
        return [
            Wanted(
                diff_id=diff_id,
                blob=blob,
                job=RegistryLayer(
                    pull=pull,
                    ways=ways,
                    reference=route.reference,
                    first=resolved.endpoint,
                    blob=blob,
                    diff_id=diff_id,
                    layout=self._layout,
                    settings=self._settings,
                    what=f"{what}: layer {number} of {len(resolved.manifest.layers)} ({blob.digest})",
                ),
            )
            for number, (blob, diff_id) in enumerate(layers_of, 1)
        ]
