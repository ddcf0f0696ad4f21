"""Whether layers can be shown with the owners of a user namespace here: found by doing it once.

It takes a kernel that stacks idmapped layers (overlayfs, Linux 5.19) and a file system that can be idmapped
below the image store. A promise in Status rests on this, so nothing is concluded from versions.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from oci.errors import CrispError
from oci.layers.erofs import IndexBuilder
from oci.workload import IdMapping, UserNamespace
from shim.files import remove_tree
from shim.images.layers import DIRECTORY, EROFS
from shim.kernel import layered, mount, namespace
from shim.kernel.probe import can_mount_erofs_from_file
from shim.namespaces import userns
from shim.rootfs import Rootfs, RootfsMount
from shim.runtimes import overlay
from shim.threads import in_thread

log = logging.getLogger(__name__)

_FIRST = 65536  # the id on the host that root becomes; any other than 0 does
_EMPTY_TAR = bytes(10240)


async def why_not(directory: Path) -> str:
    """Why layers kept in `directory` cannot be shifted, in words for a user; "" where they can.

    Everything happens in a mount namespace that ends with the look.
    """
    place = directory / "shifting"
    one = (IdMapping(host_id=_FIRST, container_id=0, length=1),)
    try:
        async with userns.held(UserNamespace(uids=one, gids=one), ()) as helper:
            await namespace.aside(lambda: _try(place, f"/proc/{helper}/ns/user"))
    except (CrispError, OSError) as error:
        log.info("no user namespaces for pods", extra={"reason": str(error)})
        return f"the kernel or the file system of {directory} cannot show layers with shifted owners: {error}"
    finally:
        with contextlib.suppress(OSError):  # what an earlier look left where nothing can be removed
            await in_thread(remove_tree, place)
    return ""


def _try(place: Path, user_namespace: str) -> None:
    namespace.unshare(namespace.Kind.MOUNT)
    mount.set_propagation("/", mount.Flag.PRIVATE, recursive=True)
    forms = [DIRECTORY]
    remove_tree(place)
    place.mkdir(mode=0o700)
    if can_mount_erofs_from_file(place):
        forms.append(EROFS)
    for form in forms:
        lower = place / form
        lower.mkdir(mode=0o755)
        if form == EROFS:
            index, tar = place / "index", place / "tar"
            builder = IndexBuilder()
            builder.receive(_EMPTY_TAR)
            tar.write_bytes(_EMPTY_TAR)
            index.write_bytes(builder.finish())
            layered.mount_erofs(lower, index, device=tar)
        shown = RootfsMount(
            type="overlay",
            lower=(os.fspath(lower),),
            upper=os.fspath(place / f"{form}-upper"),
            work=os.fspath(place / f"{form}-work"),
            user_namespace=user_namespace,
        )
        overlay.mount_rootfs(place / f"{form}-shown", Rootfs(mounts=(shown,)))
        overlay.unmount_rootfs(place / f"{form}-shown")
        mount.unmount(lower)
