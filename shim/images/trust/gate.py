"""The gate of the image store: what the node's policy and verifiers do not allow does not come in, and does

not run once they no longer allow it. Belongs to the event loop.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from oci.errors import BadInput, Untrusted
from oci.reference import Reference, parse
from oci.trust.payload import SIMPLE
from oci.trust.policy import DOCKER, Demand, Policy
from oci.trust.requirements import Keys, Reject, SignedBy, SigstoreSigned
from oci.trust.signatures import Signature
from oci.trust.verdict import Subject, check_signed, check_sigstore, digest_of_demand
from shim.images.cancellation import Cancellation
from shim.images.resolving import Resolved
from shim.images.routes import Route
from shim.images.settings import StoreSettings
from shim.images.threads import Threads
from shim.images.trust import finding
from shim.images.trust.files import TrustFiles
from shim.images.trust.gpg import Gpg
from shim.images.trust.verifiers import Asked, verify
from shim.records import Admission, ImageRecord, KeptSignature

_REMEMBERED = 4096


class Gate:
    """`directory` is for short-lived files of gpg."""

    def __init__(self, settings: StoreSettings, threads: Threads, directory: Path) -> None:
        self._settings = settings
        self._threads = threads
        self._files = TrustFiles(settings.trust)
        self._gpg = Gpg(settings.trust.gpg, directory)
        # What a changed policy has let in already, so that gpg does not run for every container.
        self._passed: set[tuple[str, str, str, str, str]] = set()

    async def before(self, reference: Reference, namespace: str) -> None:
        """Refuse what no signature could help, before a registry is asked. Raises Untrusted."""
        demand, _ = await self._demand(
            lambda policy: policy.of_registry(reference), namespace, str(reference)
        )
        _refuse_rejected(demand, str(reference))

    async def admit(self, route: Route, resolved: Resolved, namespace: str) -> Admission:
        """Hold what a name led to against policy and verifiers. Raises Untrusted, Busy, BadInput."""
        reference = route.reference
        demand, keys = await self._demand(
            lambda policy: policy.of_registry(reference), namespace, str(reference)
        )
        digests = tuple(dict.fromkeys((resolved.manifest_digest, resolved.name_digest)))
        signatures = await self._find(demand, route, resolved, digests)
        subject = Subject(reference=reference, digests=frozenset(digests))
        await self._judge(demand, keys, signatures, subject)
        admission = Admission(
            source=DOCKER,
            name=reference.canonical,
            digest=resolved.name_digest,
            policy=digest_of_demand(demand, keys),
            media_type=resolved.media_type,
            size=resolved.size,
            signatures=tuple(_kept(signature) for signature in signatures),
        )
        await verify(self._settings.trust, _asked(admission, reference))
        return admission

    async def admit_again(
        self, record: ImageRecord, reference: Reference, digest: str, namespace: str
    ) -> bool:
        """Whether a name is let in with what was kept when it was last pulled and meant `digest`, too.

        False where that digest never came by that name, as with an archive: it is to be judged as a new pull.
        Raises Untrusted when a verifier refuses.
        """
        named = _named(record, reference)
        admission = next((one for one in named if one.digest == digest), None)
        if admission is None:
            return False
        try:
            await self._judge_again(record, admission, reference, namespace)
        except Untrusted:
            return False  # there may be new signatures by now
        await verify(self._settings.trust, _asked(admission, reference))
        return True

    async def admit_archive(self, transport: str, path: Path, what: str) -> Admission:
        """Hold an image of an archive against the policy; signatures are not taken from there."""
        demand, keys = await self._demand(lambda policy: policy.of_archive(transport, str(path)), "", what)
        await self._judge(demand, keys, (), None, what)
        return Admission(source=transport, name=str(path), digest="", policy=digest_of_demand(demand, keys))

    async def check(self, record: ImageRecord, name: str, namespace: str) -> None:
        """At the creation of a container or image volume that names the image so: still allowed? By id, any

        of its names will do. Raises Untrusted.
        """
        reference = _as_reference(record, name)
        if reference is not None:
            await self._judge_again(record, _admission(record, reference), reference, namespace)
            return
        claims: list[tuple[Admission | None, Reference | None]] = [
            (admission, parse(admission.name) if admission.source == DOCKER else None)
            for admission in record.admissions
        ]
        claims = claims or [(None, parse(text)) for text in (*record.tags, *record.digests)] or [(None, None)]
        refusals = []
        for admission, wanted in claims:
            try:
                await self._judge_again(record, admission, wanted, namespace)
            except Untrusted as refusal:
                refusals.append(refusal.message)
            else:
                return
        raise Untrusted("; ".join(refusals))

    async def explain(self, reference: Reference, namespace: str = "") -> str:
        """What the policy demands of that name, and where it says so."""
        demand, _ = await self._demand(
            lambda policy: policy.of_registry(reference), namespace, str(reference)
        )
        kinds = ", ".join(type(requirement).__name__ for requirement in demand.requirements)
        return f"signature policy: {kinds} ({demand.scope})"

    async def _demand(
        self, find: Callable[[Policy], Demand], namespace: str, what: str
    ) -> tuple[Demand, dict[str, bytes]]:
        def read() -> tuple[Demand, dict[str, bytes]]:
            demand = find(self._files.policy(namespace))
            return demand, self._files.keys(demand)

        try:
            return await self._threads.do(read)
        except BadInput as failure:
            raise Untrusted(f"{what}: signature policy {failure.message}") from failure

    async def _find(
        self, demand: Demand, route: Route, resolved: Resolved, digests: Sequence[str]
    ) -> tuple[Signature, ...]:
        """The signatures that a requirement can use; none are looked for where none is wanted."""
        attached = any(isinstance(one, SigstoreSigned) for one in demand.requirements)
        beside = any(isinstance(one, SignedBy) for one in demand.requirements)
        if not attached and not beside:
            return ()
        cancellation = Cancellation()

        def find() -> tuple[Signature, ...]:
            places = self._files.places()
            found: list[Signature] = []
            if attached and places.attachments(route.reference):
                found += finding.attached(route, resolved.endpoint, digests, cancellation)
            if beside:
                found += finding.beside(route.reference, digests, places, self._settings, cancellation)
            return tuple(found)

        return await self._threads.run(cancellation, find)

    async def _judge_again(
        self, record: ImageRecord, admission: Admission | None, reference: Reference | None, namespace: str
    ) -> None:
        what = str(reference) if reference is not None else f"image {record.id}"

        def find(policy: Policy) -> Demand:
            if admission is not None and admission.source != DOCKER:
                return policy.of_archive(admission.source, admission.name)
            return policy.default if reference is None else policy.of_registry(reference)

        demand, keys = await self._demand(find, namespace, what)
        digest = digest_of_demand(demand, keys)
        if admission is not None and admission.policy == digest:
            return
        _refuse_rejected(demand, what)
        held = record.admissions if admission is None else (admission,)
        key = (record.id, what, "" if admission is None else admission.name, namespace, digest)
        if key in self._passed:
            return
        digests = {one.digest for one in held if one.digest} | {record.manifest_digest}
        signatures = tuple(_unpacked(kept) for one in held for kept in one.signatures)
        subject = None if reference is None else Subject(reference=reference, digests=frozenset(digests))
        try:
            await self._judge(demand, keys, signatures, subject, what)
        except Untrusted as refusal:
            raise Untrusted(
                f"{refusal.message} (the policy has changed since the image came; pull it again to look for "
                "new signatures)"
            ) from refusal
        if len(self._passed) >= _REMEMBERED:
            self._passed.clear()
        self._passed.add(key)

    async def _judge(
        self,
        demand: Demand,
        keys: Mapping[str, bytes],
        signatures: Sequence[Signature],
        subject: Subject | None,
        what: str = "",
    ) -> None:
        """Every requirement must be met."""
        what = what or (str(subject.reference) if subject is not None else "")
        _refuse_rejected(demand, what)
        for requirement in demand.requirements:
            if not isinstance(requirement, (SignedBy, SigstoreSigned)):
                continue
            if subject is None:
                raise Untrusted(
                    f"{what}: {demand.scope} demands a signature, which an archive does not bring"
                )
            try:
                if isinstance(requirement, SigstoreSigned):
                    await self._threads.do(
                        check_sigstore, requirement, keys, signatures, subject, now=time.time()
                    )
                else:
                    await self._check_signed_by(requirement, keys, signatures, subject)
            except BadInput as failure:
                raise Untrusted(f"{what}: {demand.scope} is not met: {failure.message}") from failure

    async def _check_signed_by(
        self,
        requirement: SignedBy,
        files: Mapping[str, bytes],
        signatures: Sequence[Signature],
        subject: Subject,
    ) -> None:
        simple = [signature.content for signature in signatures if not signature.sigstore]
        if not simple:
            raise BadInput("there is no GPG signature of it")
        reasons = []
        for number, text in enumerate(await self._gpg.open(_material(requirement.keys, files), simple), 1):
            try:
                if isinstance(text, BadInput):
                    raise text
                check_signed(text, SIMPLE, requirement.identity, subject)
            except BadInput as failure:
                reasons.append(f"signature {number}: {failure.message}")
            else:
                return
        raise BadInput("; ".join(reasons))


def _refuse_rejected(demand: Demand, what: str) -> None:
    if any(isinstance(requirement, Reject) for requirement in demand.requirements):
        raise Untrusted(f"{what}: rejected by {demand.scope}")


def _material(keys: Keys, files: Mapping[str, bytes]) -> list[bytes]:
    return [*(files[path] for path in keys.paths), *keys.data]


def _as_reference(record: ImageRecord, name: str) -> Reference | None:
    """The name, where the image is known by it as a name and not only by its id."""
    try:
        reference = parse(name)
    except BadInput:
        return None
    return reference if reference.canonical in (*record.tags, *record.digests) else None


def _admission(record: ImageRecord, reference: Reference) -> Admission | None:
    """How the image came by that name; else the archive that it came out of; else None."""
    archives = [one for one in record.admissions if one.source != DOCKER]
    return next(iter((*_named(record, reference), *archives)), None)


def _named(record: ImageRecord, reference: Reference) -> list[Admission]:
    """How the image came from a registry by that name."""
    return [one for one in record.admissions if one.source == DOCKER and one.name == reference.canonical]


def _asked(admission: Admission, reference: Reference) -> Asked:
    return Asked(
        name=str(reference),
        digest=admission.digest,
        media_type=admission.media_type,
        size=admission.size,
    )


def _kept(signature: Signature) -> KeptSignature:
    return KeptSignature(
        content=base64.b64encode(signature.content).decode("ascii"), annotations=dict(signature.annotations)
    )


def _unpacked(kept: KeptSignature) -> Signature:
    return Signature(content=base64.b64decode(kept.content), annotations=kept.annotations)
