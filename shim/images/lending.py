"""Layers lent to containers: each mounted once, when the first container wants it, until the last has gone.

A small file by container says what it holds, so that this survives a restart and the removal of the image.
Knows mounts and counts; not what an image is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oci.errors import Internal
from oci.workload import ContainerId, ImageId, PodId
from shim.files import write_atomic
from shim.images.additional import Kept
from shim.images.holdings import Holdings
from shim.images.layers import EROFS, NEEDS, present
from shim.images.layout import Layout
from shim.images.settling import Settling
from shim.images.threads import Threads
from shim.kernel import mount
from shim.kernel.layered import mount_erofs
from shim.kernel.mountinfo import mounts_below

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """What one container holds. `layers` are diff ids, base first, each once."""

    image_id: ImageId
    layers: tuple[str, ...]


def stack_order(layers: Sequence[str]) -> tuple[str, ...]:
    """Layers base first with each kept at its highest place alone: overlayfs takes none twice, and the

    lower of two equal layers is hidden by the upper in every path.
    """
    return tuple(reversed(dict.fromkeys(reversed(layers))))


class Lending:
    """Counts and mounts of one store. Belongs to the event loop."""

    def __init__(self, layout: Layout, threads: Threads, holdings: Holdings) -> None:
        self._layout = layout
        self._holdings = holdings
        self._threads = threads
        self._loans: dict[ContainerId, Loan] = {}
        self._users: dict[str, set[ContainerId]] = {}
        self._lock = asyncio.Lock()
        self._settling = Settling(holdings.layout_of, threads, self.layers)

    async def close(self) -> None:
        """What was lent stays lent."""
        await self._settling.close()

    @property
    def loans(self) -> Mapping[ContainerId, Loan]:
        return self._loans

    def layers(self) -> frozenset[str]:
        """Diff ids that containers hold."""
        return frozenset(self._users)

    def users(self, diff_id: str) -> tuple[ContainerId, ...]:
        """Who holds the layer: containers, and "POD.WORD" for images that pods mount."""
        return tuple(sorted(self._users.get(diff_id, ())))

    def holds(self, image_id: ImageId) -> bool:
        return any(loan.image_id == image_id for loan in self._loans.values())

    async def recover(self, containers: Iterable[ContainerId], pods: Iterable[PodId]) -> None:
        """Read the loans of those containers and pods ("POD.WORD"); drop the rest with their mounts."""
        known = frozenset[str]([*containers, *pods])
        found = await self._threads.do(self._read_loans)
        for container_id, loan in found.items():
            if container_id.partition(".")[0] in known:
                self._count(container_id, loan)
            else:
                with _kept_where_read_only():
                    await self._threads.do(self._forget_file, container_id)
        wanted = frozenset(os.fspath(self._layout.tree(diff_id)) for diff_id in self._users)
        await self._threads.do(self._unmount_others, wanted)

    async def lend(self, container_id: ContainerId, loan: Loan) -> tuple[str, ...]:
        """Paths of the loan's layers, the top one first, mounted where their form needs it.

        Raises Absent (a layer is nowhere), Internal (one is damaged or cannot be mounted), OSError (disk).
        """
        async with self._lock:
            fresh = container_id not in self._loans
            if not fresh and self._loans[container_id] != loan:
                raise Internal(f"container {container_id} holds the layers of another image already")
            self._count(container_id, loan)
            try:
                wanted = [self._holdings.kept(diff_id) for diff_id in loan.layers]
                await self._threads.do(self._make_ready, container_id, loan, wanted)
            except BaseException:
                if fresh:
                    await self._uncount(container_id)
                raise
        self._settling.started(kept.record.diff_id for kept in wanted if kept.record.form == EROFS)
        return tuple(os.fspath(self._shown(kept)) for kept in reversed(wanted))

    async def take_back(self, container_id: ContainerId) -> bool:
        """End a loan; False when there was none."""
        async with self._lock:
            if container_id not in self._loans:
                return False
            await self._uncount(container_id)
            return True

    def _count(self, container_id: ContainerId, loan: Loan) -> None:
        self._loans[container_id] = loan
        for diff_id in loan.layers:
            self._users.setdefault(diff_id, set()).add(container_id)

    async def _uncount(self, container_id: ContainerId) -> None:
        loan = self._loans[container_id]
        idle = [diff_id for diff_id in loan.layers if self._users[diff_id] == {container_id}]
        await self._threads.do(self._unmount, idle)
        await self._threads.do(self._forget_file, container_id)
        del self._loans[container_id]
        for diff_id in loan.layers:
            self._users[diff_id].discard(container_id)
            if not self._users[diff_id]:
                del self._users[diff_id]

    def _shown(self, kept: Kept) -> Path:
        """Where the layer's files are seen: mounts are all made in our own store."""
        layout = self._layout if kept.record.form == EROFS else kept.layout
        return layout.tree(kept.record.diff_id)

    def _make_ready(self, container_id: ContainerId, loan: Loan, wanted: Sequence[Kept]) -> None:
        content = json.dumps({"image": loan.image_id, "layers": loan.layers}).encode("ascii")
        path = self._layout.lent_file(container_id)
        if not path.exists():
            # not durable on purpose: after a power cut no container runs on these mounts
            write_atomic(path, content)
        for kept in wanted:
            self._mount(kept)

    def _mount(self, kept: Kept) -> None:
        record, target = kept.record, self._shown(kept)
        if record.form == EROFS and is_mounted(target):
            return
        if not present(kept.layout, record):
            raise Internal(
                f"layer {record.diff_id}: its files in {kept.layout.root} are missing or cut short: "
                "remove the image and pull it again"
            )
        if record.form != EROFS:
            return
        with contextlib.suppress(FileExistsError):
            target.mkdir(0o700)
        index, tar = kept.layout.index(record.diff_id), kept.layout.tar(record.diff_id)
        try:
            mount_erofs(target, index, device=tar)
        except OSError as failure:
            name = errno.errorcode.get(failure.errno or 0, str(failure.errno))
            cannot = failure.errno in (errno.ENOTBLK, errno.ENODEV)
            hint = f': images.layer_form = "erofs" takes {NEEDS}' if cannot else ""
            raise Internal(
                f"layer {record.diff_id}: mounting {index} at {target}: "
                f"{os.strerror(failure.errno or 0).lower()} ({name}){hint}"
            ) from failure

    def _unmount(self, diff_ids: Iterable[str]) -> None:
        for diff_id in diff_ids:
            target = self._layout.tree(diff_id)
            if is_mounted(target):
                mount.unmount(target)
                with contextlib.suppress(OSError):
                    target.rmdir()

    def _unmount_others(self, wanted: frozenset[str]) -> None:
        for found in mounts_below(os.path.realpath(self._layout.lower)):
            target = self._layout.lower / Path(found.target).name
            if os.fspath(target) not in wanted:
                mount.unmount(target)
                with contextlib.suppress(OSError):
                    target.rmdir()

    def _forget_file(self, container_id: ContainerId) -> None:
        self._layout.lent_file(container_id).unlink(missing_ok=True)

    def _read_loans(self) -> dict[ContainerId, Loan]:
        found: dict[ContainerId, Loan] = {}
        for path in self._layout.lent.iterdir():
            try:
                content = json.loads(path.read_bytes())
                layers = tuple(str(layer) for layer in content["layers"])
                found[ContainerId(path.name)] = Loan(image_id=ImageId(content["image"]), layers=layers)
            except (OSError, ValueError, TypeError, KeyError) as failure:
                log.warning(
                    "a loan of layers cannot be read", extra={"path": str(path), "reason": str(failure)}
                )
                with _kept_where_read_only():
                    path.unlink(missing_ok=True)
        return found


@contextlib.contextmanager
def _kept_where_read_only() -> Iterator[None]:
    """What a start cannot remove is for a later one to remove."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EROFS:
            raise


def is_mounted(target: Path) -> bool:
    """Whether a file system of its own stands at `target`. Blocking, two stats."""
    try:
        return target.lstat().st_dev != target.parent.stat().st_dev
    except FileNotFoundError:
        return False
