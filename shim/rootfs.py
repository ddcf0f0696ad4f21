"""A container's root file system as a list of mounts, which a driver carries out or hands to its runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace

from oci.workload import UserNamespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Owners:
    """Whose the files shall be: those of a pod's user namespace, which is kept at the path `namespace`."""

    namespace: str
    user: UserNamespace

    @property
    def root(self) -> tuple[int, int]:
        """The namespace's root, as the host numbers its user and group. Id 0 is always mapped."""
        return self.user.host_uid(0) or 0, self.user.host_gid(0) or 0

    def shifted(self, uid: int, gid: int) -> tuple[int, int]:
        """A user and group of the image as the host numbers them; one that is not mapped becomes root."""
        user, group = self.user.host_uid(uid), self.user.host_gid(gid)
        return self.root[0] if user is None else user, self.root[1] if group is None else group


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsMount:
    """One mount. For an overlay `lower` lists the layers, the top one first; other types use `source`.

    With `user_namespace`, the path of a kept one, what is below (layers, a bind's source) is shown with its
    owners shifted by the maps of that namespace; a writable layer belongs to the namespace already.
    """

    type: str  # "overlay", "bind", "ext4", ...
    source: str = ""
    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    options: tuple[str, ...] = ()
    user_namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rootfs:
    """Mounts in the order in which they are stacked on the container's `rootfs` directory."""

    mounts: tuple[RootfsMount, ...]


def labelled(rootfs: Rootfs, label: str) -> Rootfs:
    """With every file of its overlays shown under one SELinux label (mount(8), `context=`)."""
    return Rootfs(
        mounts=tuple(
            replace(one, options=(*one.options, f"context={label}")) if one.type == "overlay" else one
            for one in rootfs.mounts
        )
    )
