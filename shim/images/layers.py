"""Layers kept: a verified layer gets its final name and its record, in one form or the other, or goes.

Knows files and records of layers; nothing of images, registries or mounts.
"""

from __future__ import annotations

import errno
import logging
import time
from pathlib import Path

from shim.files import remove_tree, sync_directory, sync_file_system, write_atomic
from shim.images.layout import Layout
from shim.images.parents import encode_implied
from shim.images.receive import Received, disk_failure
from shim.images.threads import Threads
from shim.images.unpacking import Unpacked, unpack
from shim.images.usage import walk
from shim.kernel.probe import can_mount_erofs_from_file
from shim.records import LayerRecord

log = logging.getLogger(__name__)

EROFS = "erofs"
DIRECTORY = "directory"
NEEDS = "Linux 6.12 with EROFS, and a store whose file system is not in memory; auto takes what is possible"


def choose_form(setting: str, directory: Path) -> str:
    """The form for new layers: the setting, or what mounts from `directory`. Blocking, milliseconds."""
    if setting == DIRECTORY:
        return setting
    possible = can_mount_erofs_from_file(directory)
    if setting == EROFS and not possible:
        log.warning(
            "images.layer_form is erofs, and the kernel cannot mount EROFS from a file of the store: "
            "containers will not start",
            extra={"directory": str(directory), "needs": NEEDS},
        )
        return setting
    return EROFS if possible else DIRECTORY


def size_of(layout: Layout, diff_id: str, form: str) -> int:
    """Bytes that a layer's files take, whole blocks of 4096; -1 when they are not there. Blocking."""
    try:
        if form == EROFS:
            files = (layout.tar(diff_id), layout.index(diff_id), layout.implied(diff_id))
            sizes = [path.stat().st_size for path in files[:2]]
            sizes += [path.stat().st_size for path in files[2:] if path.exists()]
            return sum(-(-size // 4096) * 4096 for size in sizes)
        tree = layout.tree(diff_id)
        return walk(tree).bytes + walk(layout.implied(diff_id)).bytes if tree.is_dir() else -1
    except FileNotFoundError:
        return -1


def present(layout: Layout, record: LayerRecord) -> bool:
    """Whether the layer's files are there, whole as far as one stat tells. Blocking."""
    if record.form == EROFS:
        return size_of(layout, record.diff_id, EROFS) == record.size
    return layout.tree(record.diff_id).is_dir()


async def keep(
    layout: Layout,
    threads: Threads,
    diff_id: str,
    received: Received,
    *,
    form: str,
    isolate: bool,
    what: str,
) -> LayerRecord:
    """Give a received layer its final name in the form that is wanted; its record, not yet stored.

    Owns `received`: whatever happens its temporary files are gone afterwards. Raises Full, BadInput (a layer
    that cannot be unpacked), Internal.
    """
    if form == EROFS:
        try:
            return await threads.do(_keep_files, layout, diff_id, received, what)
        except BaseException:
            await threads.do(received.discard)
            raise
    return await _keep_tree(layout, threads, diff_id, received, what, isolate=isolate)


def _keep_files(layout: Layout, diff_id: str, received: Received, what: str) -> LayerRecord:
    try:
        _keep_implied(layout, diff_id, received)
        received.index.replace(layout.index(diff_id))
        received.tar.replace(layout.tar(diff_id))
        blob, blob_size = _keep_blob(layout, diff_id, received)
    except OSError as failure:
        remove_files(layout, diff_id)
        raise disk_failure(failure, layout.layers, what) from failure
    return LayerRecord(
        diff_id=diff_id,
        form=EROFS,
        size=size_of(layout, diff_id, EROFS),
        inodes=received.inodes,
        created_at=time.time_ns(),
        blob=blob,
        blob_size=blob_size,
        seal=received.seal,
    )


def _keep_blob(layout: Layout, diff_id: str, received: Received) -> tuple[str, int]:
    """Digest and size on disk of the compressed stream, which gets its name if it is kept."""
    if received.blob is None:
        return "", 0
    kept = layout.blob(diff_id)
    digest = layout.digest_of_fresh(received.blob)
    received.blob.replace(kept)
    return digest, walk(kept).bytes


def _keep_implied(layout: Layout, diff_id: str, received: Received) -> None:
    if received.implied:
        write_atomic(layout.implied(diff_id), encode_implied(received.implied), durable=True)


async def _keep_tree(
    layout: Layout, threads: Threads, diff_id: str, received: Received, what: str, *, isolate: bool
) -> LayerRecord:
    directory = layout.fresh(".tree")
    try:
        await threads.do(directory.mkdir, 0o755)
        unpacked = await unpack(received.tar, directory, what, isolate=isolate)
        return await threads.do(_name_tree, layout, diff_id, received, directory, unpacked, what)
    except OSError as failure:
        raise disk_failure(failure, directory, what) from failure
    finally:
        await threads.do(_clear, received, directory)


def _clear(received: Received, directory: Path) -> None:
    received.discard()
    remove_tree(directory)


def _name_tree(
    layout: Layout, diff_id: str, received: Received, directory: Path, unpacked: Unpacked, what: str
) -> LayerRecord:
    tree = layout.tree(diff_id)
    try:
        sync_file_system(directory)
        _make_way(layout, tree)
        _keep_implied(layout, diff_id, received)
        blob, blob_size = _keep_blob(layout, diff_id, received)
        directory.rename(tree)
        sync_directory(layout.lower)
    except OSError as failure:
        raise disk_failure(failure, tree, what) from failure
    return LayerRecord(
        diff_id=diff_id,
        form=DIRECTORY,
        size=unpacked.use.bytes + walk(layout.implied(diff_id)).bytes,
        inodes=unpacked.use.inodes,
        created_at=time.time_ns(),
        blob=blob,
        blob_size=blob_size,
        seal=unpacked.seal,
    )


def _make_way(layout: Layout, tree: Path) -> None:
    """Remove an empty mount point of the other form, or what a removal that failed has left."""
    try:
        tree.rmdir()
    except FileNotFoundError:
        return
    except OSError as failure:
        if failure.errno != errno.ENOTEMPTY:
            raise
        grave = layout.fresh(".gone")
        tree.rename(grave)
        remove_tree(grave)


def bury(layout: Layout, diff_id: str) -> Path | None:
    """Remove a layer, nothing of it being mounted. Blocking, milliseconds, idempotent.

    A tree only gets another name, so that none is ever half there under its own; that is returned, for the
    caller to remove at leisure.
    """
    for path in layout.files(diff_id):
        path.unlink(missing_ok=True)
    grave = layout.fresh(".gone")
    try:
        layout.tree(diff_id).rename(grave)
    except FileNotFoundError:
        return None
    return grave


def remove_files(layout: Layout, diff_id: str) -> None:
    """Remove a layer with all its files. Blocking, as long as a tree takes."""
    grave = bury(layout, diff_id)
    if grave is not None:
        remove_tree(grave)
