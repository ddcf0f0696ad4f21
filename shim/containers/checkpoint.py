"""CheckpointContainer: the processes' memory by CRIU through the runtime, with what it needs, as an archive.

The archive has the members that checkpointctl and the peers' restore know: `checkpoint/` (CRIU's images),
`spec.dump` (the OCI configuration), `config.dump` (what container it was), `rootfs-diff.tar` (its writable
layer) and `deleted.files` (what of the image it has removed). The container runs on, whatever happens.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from oci.errors import BadInput, Unsupported, WrongState
from oci.workload import ContainerId
from shim import process
from shim.containers.lookup import current
from shim.containers.target import target
from shim.files import make_private_directory, remove_tree, writing
from shim.lifecycle.undo import to_the_end
from shim.node import Node
from shim.records import ContainerRecord, ContainerState
from shim.threads import in_thread

_PROGRAM = "criu"
_DIRECTORY = "checkpoint"  # below the container's own; a daemon that dies here leaves it to RemoveContainer


async def checkpoint(node: Node, id_: ContainerId, location: Path, *, limit: float | None) -> None:
    """Write the archive of a RUNNING container to `location`, which must not exist, within `limit` seconds.

    Raises WrongState in other states, Unsupported where runtime or machine cannot, BadInput for the path, the
    runtime's failure and Deadline; then there is no archive.
    """
    key = ("checkpoint container", id_, node.new_id())  # no retry joins: each wants an archive of its own
    await node.operations.join(key, None, lambda: _checkpoint(node, id_, location, limit))


async def _checkpoint(node: Node, id_: ContainerId, location: Path, limit: float | None) -> None:
    async with node.operations.exclusive(("container", id_)):
        record = current(node.store, id_)
        if record.state is not ContainerState.RUNNING:
            raise WrongState(
                f"container {id_} is {record.state.value}, only a running one has memory to save"
            )
        driver = node.handlers.driver(record.handler)
        if not driver.features.checkpoint:
            raise Unsupported(
                f"handler {record.handler}: its runtime cannot checkpoint, by what it says; one built with"
                " CRIU can"
            )
        await in_thread(_check, location)
        of = target(node.paths, record)
        work = of.directory / _DIRECTORY
        try:
            images = await in_thread(_prepare, work)
            await driver.checkpoint(of, images=images, work=work / "work", limit=limit)
            await in_thread(_write, node, record, images, location)
        finally:
            await to_the_end(in_thread(remove_tree, work))


def _check(location: Path) -> None:
    if shutil.which(_PROGRAM, path=process.PATH) is None:
        raise Unsupported(f"{_PROGRAM} is not on PATH ({process.PATH}): install it to checkpoint containers")
    if not location.parent.is_dir():
        raise BadInput(f"location: the directory {location.parent} does not exist")
    if os.path.lexists(location):
        raise BadInput(f"location: {location} exists")


def _prepare(work: Path) -> Path:
    with writing("checkpoint", work):
        remove_tree(work)
        make_private_directory(work)
        make_private_directory(work / "work")
        return make_private_directory(work / "images")


def _write(node: Node, record: ContainerRecord, images: Path, location: Path) -> None:
    """Under no name until it is whole, so that nothing half written can be left or found."""
    directory = node.paths.container(record.id)
    with writing("checkpoint", location):
        descriptor = os.open(location.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for path in sorted(images.rglob("*")):
                    archive.add(path, f"checkpoint/{path.relative_to(images)}", recursive=False)
                _add(archive, "spec.dump", (directory / "config.json").read_bytes())
                _add(archive, "config.dump", json.dumps(_description(node, record)).encode())
                deleted = _add_layer(archive, directory / "upper")
                _add(archive, "deleted.files", json.dumps(deleted).encode())
            file.flush()
            os.fsync(file.fileno())
            try:
                # Only with a descriptor does Python ask the kernel to follow the link (open(2), O_TMPFILE).
                os.link(f"/proc/self/fd/{file.fileno()}", location, src_dir_fd=file.fileno())
            except FileExistsError:
                raise BadInput(f"location: {location} exists") from None


def _description(node: Node, record: ContainerRecord) -> dict[str, object]:
    image = record.spec.image
    return {
        "id": record.id,
        "name": record.spec.metadata.name,
        "rootfsImage": record.image_id,
        "rootfsImageRef": record.image_ref,
        "rootfsImageName": image.user_specified_image or image.image,
        "runtime": record.handler,
        "createdTime": _time(record.created_at),
        "checkpointedTime": _time(node.now()),
        "restored": False,
    }


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC).isoformat()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    archive.addfile(member, io.BytesIO(content))


def _add_layer(archive: tarfile.TarFile, upper: Path) -> list[str]:
    """Add the writable layer as an archive within the archive; returns the paths that it takes away."""
    deleted: list[str] = []
    inner_path = upper.parent / _DIRECTORY / "rootfs-diff.tar"
    with tarfile.open(inner_path, mode="w", format=tarfile.PAX_FORMAT) as inner:
        for path in _tree(upper):
            name = str(path.relative_to(upper))
            status = path.lstat()
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:  # overlayfs' whiteout
                deleted.append(name)
                continue
            if stat.S_ISDIR(status.st_mode) and _opaque(path):
                deleted.append(name)
            if not stat.S_ISSOCK(status.st_mode):
                _add_file(inner, path, name)
    archive.add(inner_path, "rootfs-diff.tar")
    return deleted


def _tree(upper: Path) -> Iterator[Path]:
    for directory, directories, files in os.walk(upper):
        yield from (Path(directory, name) for name in sorted((*directories, *files)))


def _opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False


def _add_file(inner: tarfile.TarFile, path: Path, name: str) -> None:
    """A file that goes away, or becomes shorter, while the container runs on is no failure."""
    try:
        member = inner.gettarinfo(path, name)
        if not member.isreg():
            inner.addfile(member)
            return
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            inner.addfile(member, _Padded(file))
    except FileNotFoundError:
        return


class _Padded(io.RawIOBase):
    """A file that never ends early: what is missing of the announced size is zeros."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        found = self._file.read(size)
        return found.ljust(max(size, 0), b"\0")
