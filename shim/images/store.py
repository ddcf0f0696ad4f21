"""The image store: images by every name they have, pulled, imported, removed, and lent to containers.

This is the door of `shim/images/`; the other modules of the folder are its rooms. It keeps layers and
documents below its directory and records in the state store; it knows nothing about pods or runtimes.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oci.errors import Absent, WrongState
from oci.manifest import Platform, normalise
from oci.registry_auth import Credentials
from oci.workload import ContainerId, ImageId, PodId
from shim.files import is_read_only
from shim.images import layers, recovery
from shim.images.additional import AdditionalStore, AdditionalStores
from shim.images.asking import Asking
from shim.images.catalogue import find
from shim.images.documents import digests_of, read_document
from shim.images.export import Export
from shim.images.foreign import Taken
from shim.images.fsck import Fsck
from shim.images.holdings import Holdings
from shim.images.importing import Importing
from shim.images.intake import Intake, settle
from shim.images.keeping import Keeping
from shim.images.layout import Layout
from shim.images.lending import Lending, Loan, stack_order
from shim.images.obtaining import Obtaining
from shim.images.persistence import Records
from shim.images.progress import PullProgress, PullTotals
from shim.images.pruning import Pruning
from shim.images.pulls import Pulls
from shim.images.receive import disk_failure
from shim.images.settings import StoreSettings
from shim.images.threads import Threads
from shim.images.trust.gate import Gate
from shim.images.upkeep import Upkeep
from shim.images.usage import Use, walk
from shim.records import ImageRecord
from shim.rootfs import Owners, Rootfs, RootfsMount

log = logging.getLogger(__name__)

_REGISTRY_THREADS = 32
_LOCAL_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemUsage:
    """Use of one file system, as CRI's FilesystemUsage wants it."""

    mountpoint: Path  # an existing directory
    used_bytes: int
    inodes_used: int
    timestamp: int  # ns since the Unix epoch


class ImageStore:
    """All images of a node. Every method belongs to the event loop; blocking work is done in its threads."""

    def __init__(self, directory: Path, *, records: Records, settings: StoreSettings) -> None:
        self.directory = directory
        self._layout = Layout(directory)
        self._records = records
        self._settings = settings
        self._threads = Threads(remote=_REGISTRY_THREADS, local=_LOCAL_THREADS)
        self._additional = AdditionalStores(settings.additional, own=directory)
        self._holdings = Holdings(self._layout, records, self._additional)
        self._intake = Intake(self._layout, self._threads, settings, records, self._additional)
        self._lending = Lending(self._layout, self._threads, self._holdings)
        self._asking = Asking(settings, self._threads)
        self._gate = Gate(settings, self._threads, self._layout.temporary)
        self._keeping = Keeping(
            self._layout, records, settings, self._threads, self._intake, self._lending, self._holdings
        )
        architecture, variant = normalise(settings.architecture or os.uname().machine, settings.variant)
        self._node = Platform(architecture=architecture, variant=variant)
        self._importing = Importing(
            self._layout, settings, self._threads, self._keeping, self._gate, self._node
        )
        self._pulls = Pulls(
            self._layout,
            self._node,
            records=records,
            settings=settings,
            threads=self._threads,
            asking=self._asking,
            gate=self._gate,
            intake=self._intake,
            keeping=self._keeping,
            holdings=self._holdings,
        )
        self.upkeep = self._upkeep()

    def _upkeep(self) -> Upkeep:
        rooms = self._layout, self._records, self._settings, self._threads, self._intake
        obtaining = Obtaining(*rooms, self._asking, self._node, self._holdings)
        return Upkeep(
            fsck=Fsck(*rooms, self._lending, self._keeping, obtaining, self._additional),
            pruning=Pruning(self._records, self._intake, self._keeping, self._lending),
            export=Export(self._holdings, self._threads, self._intake, obtaining),
            keeping=self._keeping,
            require=self.require,
        )

    def start_threads(self) -> None:
        """Those that the first pulls would start, one after the other, while the event loop waits."""
        self._threads.start()

    async def recover(self, containers: Iterable[ContainerId], pods: Iterable[PodId] = ()) -> None:
        """At start, before anything else: make the directory, drop what was half done, count what is lent.

        `containers` and `pods` are all that exist by their records; what was lent to any other is taken back.
        """
        layout = self._layout
        read_only = layout.root.is_dir() and await self._threads.do(is_read_only, layout.root)
        if not read_only:
            await self._threads.do(recovery.prepare, layout)
        await self._asking.recover()
        self._intake.form = await self._threads.do(self._choose_form, read_only)
        await self.look_at_additional()
        await self._lending.recover(containers, pods)
        if read_only:
            log.warning("nothing in the image store can be written", extra={"directory": str(layout.root)})
        else:
            await self._tidy()
        await self._intake.look_at_partials()

    def _choose_form(self, read_only: bool) -> str:
        """Blocking. Where nothing can be tried, the layers that are there show what could be mounted."""
        if not read_only:
            return layers.choose_form(self._settings.form, self._layout.temporary)
        if self._settings.form in (layers.EROFS, layers.DIRECTORY):
            return self._settings.form
        forms = {record.form for record in self._records.layers.values()}
        return layers.EROFS if layers.EROFS in forms else layers.DIRECTORY

    async def _tidy(self) -> None:
        layout = self._layout
        seen = await self._threads.do(recovery.look, layout, tuple(self._records.layers.values()))
        plan = recovery.plan(
            seen,
            self._records.images,
            self._records.layers,
            lent=self._lending.layers(),
            elsewhere=frozenset().union(*(store.layers for store in self._additional.stores)),
            layout=layout,
        )
        for image in plan.images:
            log.warning("an image is damaged, it must be pulled again", extra={"image": image.id})
            await self._records.delete(image)
        for image in plan.renamed:
            await self._records.put(image)
        for layer in plan.layers:
            await self._records.delete(layer)
        await self._threads.do(recovery.clear, layout, plan)

    async def close(self) -> None:
        """Stop pulls and threads. Mounts stay, containers use them."""
        await self._pulls.close()
        await self._intake.close()
        await self._keeping.close()
        await self._lending.close()
        self._threads.close()

    @property
    def form(self) -> str:
        """How new layers are kept: "erofs" or "directory"; decided by `recover`."""
        return self._intake.form

    def all(self) -> tuple[ImageRecord, ...]:
        """Every image, dangling ones and those of additional stores too."""
        return tuple(self._holdings.images.values())

    @property
    def additional(self) -> tuple[AdditionalStore, ...]:
        """The additional stores as the last look has found them: that of the start, of a pull, of a check."""
        return self._additional.stores

    async def look_at_additional(self) -> None:
        """See what has changed in the additional stores."""
        for store in await self._additional.look():
            log.warning(
                "an additional image store cannot be used whole",
                extra={"directory": str(store.directory), "problem": store.problem},
            )

    def find(self, name: str) -> ImageRecord | None:
        """The image of a name in any form of section 12.0: reference, id, bare hex, unique prefix of an id.

        None when there is none. Raises BadInput for an empty name or an ambiguous prefix.
        """
        return find(name, self._holdings.images, self._asking.meaning)

    def require(self, name: str) -> ImageRecord:
        """As `find`, but raises Absent."""
        record = self.find(name)
        if record is None:
            raise Absent(f"image {name[:200]!r} is not in the store: pull it first")
        return record

    async def pull(
        self,
        reference: str,
        credentials: Credentials | None = None,
        *,
        annotations: Mapping[str, str] | None = None,
        namespace: str = "",
    ) -> ImageRecord:
        """Fetch an image and make it ready; see `Pulls.pull`. Layers of additional stores need not come."""
        await self.look_at_additional()
        return await self._pulls.pull(
            reference, credentials, annotations=annotations or {}, namespace=namespace
        )

    async def check(self, record: ImageRecord, name: str, namespace: str) -> None:
        """Whether the node's policy lets a pod of that namespace use the image by that name or id.

        Raises Untrusted.
        """
        await self._gate.check(record, name, namespace)

    def progress(self) -> tuple[PullProgress, ...]:
        """The latest pulls that ended well (stage "done"), then the running ones; each oldest first."""
        return self._pulls.progress()

    def pull_totals(self) -> PullTotals:
        """How pulls have ended since the start."""
        return self._pulls.totals()

    async def explain(
        self, reference: str, credentials: Credentials | None = None, *, namespace: str = ""
    ) -> tuple[str, ...]:
        """Who would be asked for `reference`, in what order, with which login, and where that is said."""
        return await self._pulls.explain(reference, credentials, namespace=namespace)

    async def remove(self, name: str) -> None:
        """Remove the whole image that `name` names, all tags with it; absent is success.

        Unpacked files go in the background. What containers use stays on disk until the last of them is gone.
        Raises WrongState for one that only an additional store has.
        """
        await settle(self._keeping.remove(lambda: self._own(name)))

    def _own(self, name: str) -> ImageRecord | None:
        found = self.find(name) or find(name, self._records.images, self._asking.meaning)
        if found is None or (ours := self._records.images.get(found.id)) is not None:
            return found and ours
        raise WrongState(
            f"image {name[:200]}: it is in the additional store"
            f" {self._holdings.home_of(found.id).root.parent}, which is only read"
        )

    async def import_archive(self, path: Path, *, names: Sequence[str] = ()) -> list[ImageRecord]:
        """Read an OCI layout or docker-archive: a tar, a gzip or zstd of one, or a directory.

        `names` replace the names of the archive (which then must hold one image). Raises BadInput, Full.
        """
        return await self._importing.archive(path, names)

    async def import_store(
        self, kind: str, root: Path, *, images: Sequence[str] = (), dry_run: bool = False
    ) -> list[Taken]:
        """Images of another runtime's store, read offline: `kind` is "containerd" or "docker".

        All of them, or those of `images` (names, ids, digests). One that cannot be had is told with its
        reason. With `dry_run` nothing comes in. Raises BadInput when the store cannot be read.
        """
        return await self._importing.store(kind, root, images, dry_run=dry_run)

    async def acquire_rootfs(
        self, container_id: ContainerId, image_id: ImageId, directory: Path, owners: Owners | None = None
    ) -> Rootfs:
        """Lend the image's layers to a container, with a writable layer in `directory` (upper, work).

        `owners` shifts the owners of all files to those of a user namespace.

        Repeatable with equal arguments. Raises Absent (no such image), Internal (mount), Full, Busy (an
        additional store does not answer).
        """
        loan = self._loan(container_id, image_id)
        what = f"root file system of container {container_id}"
        with self._intake.wanting(loan.layers):
            try:
                lower = await self._lend(container_id, loan)
                upper, work = await self._threads.do(_make_writable, directory, Path(lower[0]), owners)
            except OSError as failure:
                raise disk_failure(failure, directory, what) from failure
        mount = RootfsMount(
            type="overlay",
            lower=lower,
            upper=str(upper),
            work=str(work),
            user_namespace=owners.namespace if owners is not None else "",
        )
        return Rootfs(mounts=(mount,))

    async def acquire_volume(
        self, holder: ContainerId, image_id: ImageId, owners: Owners | None = None
    ) -> Rootfs:
        """Lend the image's layers to a pod, to be seen read-only; `holder` is "POD.WORD".

        `release_rootfs` gives them back. Raises as `acquire_rootfs`.
        """
        loan = self._loan(holder, image_id)
        with self._intake.wanting(loan.layers):
            try:
                lower = await self._lend(holder, loan)
            except OSError as failure:
                raise disk_failure(failure, self._layout.root, f"image volume of {image_id}") from failure
        space = owners.namespace if owners is not None else ""
        if len(lower) == 1:  # overlayfs wants two layers where none is writable
            mount = RootfsMount(type="bind", source=lower[0], options=("ro",), user_namespace=space)
        else:
            mount = RootfsMount(type="overlay", lower=lower, options=("ro",), user_namespace=space)
        return Rootfs(mounts=(mount,))

    def _loan(self, holder: ContainerId, image_id: ImageId) -> Loan:
        """What the holder has of that image already, else what it is to have."""
        loan = self._lending.loans.get(holder)
        if loan is not None and loan.image_id == image_id:
            return loan
        record = self._holdings.images.get(image_id)
        if record is None:
            raise Absent(f"image {image_id} is not in the store: it was removed")
        return Loan(image_id=image_id, layers=stack_order(record.layers))

    async def _lend(self, holder: ContainerId, loan: Loan) -> tuple[str, ...]:
        ours = self._records.layers
        await self._additional.check(layer for layer in loan.layers if layer not in ours)
        return await self._lending.lend(holder, loan) or (str(self._layout.empty),)

    def volumes_of(self, pod_id: PodId) -> dict[ContainerId, ImageId]:
        """What was lent by `acquire_volume` to holders of that pod."""
        loans = self._lending.loans.items()
        return {holder: loan.image_id for holder, loan in loans if holder.startswith(f"{pod_id}.")}

    async def release_rootfs(self, container_id: ContainerId) -> None:
        """Take back what was lent; nothing lent is success. The caller removes the writable layer."""
        await settle(self._release(container_id))

    def in_use(self, image_id: ImageId) -> bool:
        """Whether a container holds the image's layers."""
        return self._lending.holds(image_id)

    async def document(self, image_id: ImageId) -> bytes:
        """The image configuration as the registry sent it (JSON). Raises Absent, Internal."""
        if image_id not in self._holdings.images:
            raise Absent(f"image {image_id} is not in the store")
        return await self._threads.do(read_document, self._holdings.home_of(image_id), image_id)

    async def filesystem_usage(self) -> FilesystemUsage:
        """What images take, from the records: no walk, works on an empty store."""
        kept = self._records.layers.values()
        sizes = {record.diff_id: record.size for record in kept}
        inodes = sum(2 if record.form == layers.EROFS else record.inodes for record in kept)
        inodes += sum(bool(record.blob) for record in kept) + self._intake.partial_files
        used = sum(record.size + record.blob_size for record in kept) + self._intake.partial_bytes
        for image in self._records.images.values():
            # what an image takes beside its layers is its documents
            used += max(image.size - sum(sizes.get(layer, 0) for layer in dict.fromkeys(image.layers)), 0)
            inodes += len(digests_of(image))
        return FilesystemUsage(
            mountpoint=self.directory, used_bytes=used, inodes_used=inodes, timestamp=time.time_ns()
        )

    async def writable_usage(self) -> FilesystemUsage:
        """What the file system of the writable layers has in use; that of the images where it is the same."""
        writable = self._settings.writable
        if writable is None:
            return await self.filesystem_usage()
        found = await self._threads.do(os.statvfs, writable)
        return FilesystemUsage(
            mountpoint=writable,
            used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
            inodes_used=found.f_files - found.f_ffree,
            timestamp=time.time_ns(),
        )

    async def usage_of(self, directory: Path) -> FilesystemUsage:
        """What a directory takes (a container's `upper`), walked in a thread; absent is zero."""
        use: Use = await self._threads.do(walk, directory)
        return FilesystemUsage(
            mountpoint=directory, used_bytes=use.bytes, inodes_used=use.inodes, timestamp=time.time_ns()
        )

    async def _release(self, container_id: ContainerId) -> None:
        if await self._lending.take_back(container_id):
            await self._keeping.collect()


def _make_writable(directory: Path, top: Path, owners: Owners | None) -> tuple[Path, Path]:
    """The writable layer: its root looks as the image's does, since overlayfs shows that of the upper one."""
    upper, work = directory / "upper", directory / "work"
    work.mkdir(mode=0o700, exist_ok=True)
    try:
        upper.mkdir(mode=0o700)
    except FileExistsError:
        return upper, work
    seen = top.stat()
    uid, gid = seen.st_uid, seen.st_gid
    os.chown(upper, *(owners.shifted(uid, gid) if owners is not None else (uid, gid)))
    upper.chmod(seen.st_mode & 0o7777)
    return upper, work
