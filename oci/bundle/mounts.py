"""The mounts of a container, outermost first (runtime-spec config.md, "Mounts"; CRI Mount).

Layers of precedence at one path, the later wins: default file systems, the pod's files, the image's volumes,
the node's mounts for all containers, the request's in their order, those of CDI devices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oci.bundle.inputs import BundleInputs, HandlerTraits, PodFiles, ResolvedMount
from oci.bundle.namespaces import mappings
from oci.bundle.text import absolute_path
from oci.cdi import MountEdit
from oci.errors import BadInput, Unsupported
from oci.facts import Peering
from oci.workload import MountRequest, NamespaceMode, Propagation, UserNamespace

_TTY_GID = 5
_EXTRA_OPTIONS = ("noexec", "nodev", "nosuid")
_PROC_FILES = frozenset(  # what file systems like lxcfs put over proc, and runtimes let them
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "net/dev",
        "slabinfo",
        "stat",
        "swaps",
        "uptime",
        "sys/kernel/ns_last_pid",
    )
)


def _filesystem(path: str, kind: str, *options: str, source: str = "") -> dict[str, Any]:
    return {"destination": path, "type": kind, "source": source or kind, "options": list(options)}


def _bind(path: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": path, "type": "bind", "source": source, "options": list(options)}


def default_mounts(
    *, privileged: bool, user: UserNamespace | None = None, host_network: bool = False
) -> list[dict[str, Any]]:
    """The file systems of every Linux container; privileged ones may write to sysfs and cgroups."""
    access = "rw" if privileged else "ro"
    sysfs = _filesystem("/sys", "sysfs", "nosuid", "noexec", "nodev", access)
    if user is not None and host_network:
        # A user namespace may mount sysfs only together with a network namespace of its own.
        sysfs = _bind("/sys", "/sys", "rbind", "rprivate", "nosuid", "noexec", "nodev", access)
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if user is None or _maps(user, _TTY_GID):
        pts.append(f"gid={_TTY_GID}")
    return [
        _filesystem("/proc", "proc", "nosuid", "noexec", "nodev"),
        _filesystem("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _filesystem("/dev/pts", "devpts", *pts),
        _filesystem("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        sysfs,
        _filesystem("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", access),
    ]


def _maps(user: UserNamespace, gid: int) -> bool:
    return any(m.container_id <= gid < m.container_id + m.length for m in user.gids)


def pod_mounts(files: PodFiles, *, readonly: bool) -> list[dict[str, Any]]:
    """The pod's shared memory and name files; the files are read-only where the root file system is."""
    access = "ro" if readonly else "rw"
    made = []
    if files.shm:
        made.append(_bind("/dev/shm", files.shm, "rbind", "rprivate", "rw", "nosuid", "nodev", "noexec"))
    for path, source in (
        ("/etc/hosts", files.hosts),
        ("/etc/hostname", files.hostname),
        ("/etc/resolv.conf", files.resolv_conf),
    ):
        if source:
            made.append(_bind(path, source, "rbind", "rprivate", access))
    return made


def request_mount(index: int, mount: ResolvedMount, handler: HandlerTraits) -> dict[str, Any]:
    """One mount of the request as a bind. Raises BadInput naming the member, Unsupported (RROUnsupported)."""
    asked, field = mount.request, f"config.mounts[{index}]"
    on_proc = mount.source.file_system == "proc"
    path = destination(f"{field}.container_path", asked.container_path, on_proc=on_proc)
    options = ["rbind", propagation(field, mount), access(field, asked, handler)]
    for option in asked.options:
        if option not in _EXTRA_OPTIONS:
            raise BadInput(f"{field}.mount_options: {option[:80]!r} is none of {', '.join(_EXTRA_OPTIONS)}")
        options.append(option)
    made = _bind(path, mount.source.path, *options)
    if asked.image is None and (asked.uid_mappings or asked.gid_mappings):
        if not (asked.uid_mappings and asked.gid_mappings):
            missing = "gidMappings" if asked.uid_mappings else "uidMappings"
            raise BadInput(f"{field}.{missing}: empty, while the other kind of mappings is set")
        if not handler.idmapped_mounts:
            raise Unsupported(f"{field}.uidMappings: handler {handler.name!r} has no id-mapped mounts")
        made["uidMappings"] = mappings(asked.uid_mappings)
        made["gidMappings"] = mappings(asked.gid_mappings)
    return made


def destination(field: str, path: str, *, on_proc: bool = False) -> str:
    """A mount target that can be allowed: not the root, and not over proc.

    A volume over /proc would let a container's first steps (labels, masked paths) be written into files of
    the container's choice (CVE-2019-16884); proc itself may be mounted there.
    """
    normal = absolute_path(field, path)
    if normal == "/":
        raise BadInput(f"{field}: the root directory cannot be mounted over")
    if normal == "/proc" and not on_proc:
        raise BadInput(f"{field}: /proc can be covered only by a proc file system")
    if normal.startswith("/proc/") and normal not in _PROC_FILES:
        raise BadInput(f"{field}: {normal!r} is inside /proc")
    return normal


def access(field: str, asked: MountRequest, handler: HandlerTraits) -> str:
    """The option for read-only, recursively or not, or writable; never less strict than asked."""
    if not asked.recursive_read_only:
        return "ro" if asked.readonly else "rw"
    if not asked.readonly:
        raise BadInput(f"{field}.recursive_read_only: needs readonly")
    if asked.propagation is not Propagation.PRIVATE:
        raise BadInput(f"{field}.recursive_read_only: needs propagation PROPAGATION_PRIVATE")
    if not handler.recursive_read_only_mounts:
        raise Unsupported(
            f"{field}.recursive_read_only: handler {handler.name!r} or the kernel (5.12 and later) has none",
            token="RROUnsupported",  # noqa: S106 -- a word that kubelet reads, no secret
        )
    return "rro"


def propagation(field: str, mount: ResolvedMount) -> str:
    """The propagation option; the mount that holds the source must be able to take part."""
    asked, peering = mount.request.propagation, mount.source.peering
    if asked is Propagation.PRIVATE:
        return "rprivate"
    if asked is Propagation.BIDIRECTIONAL:
        if peering is not Peering.SHARED:
            raise BadInput(
                f"{field}.propagation: BIDIRECTIONAL needs a shared mount, and the one that holds "
                f"{mount.source.path!r} is {_word(peering)} (mount --make-rshared makes it so)"
            )
        return "rshared"
    if peering not in (Peering.SHARED, Peering.SLAVE):
        raise BadInput(
            f"{field}.propagation: HOST_TO_CONTAINER needs a shared or slave mount, and the one that holds "
            f"{mount.source.path!r} is {_word(peering)} (mount --make-rshared makes it shared)"
        )
    return "rslave"


def _word(peering: Peering | None) -> str:
    return peering.value if peering is not None else "of unknown propagation"


def rootfs_propagation(mounts: Iterable[ResolvedMount]) -> str:
    """`linux.rootfsPropagation`: as open as the most open mount needs, "" leaves the runtime's default."""
    asked = {mount.request.propagation for mount in mounts}
    if Propagation.BIDIRECTIONAL in asked:
        return "rshared"
    return "rslave" if Propagation.HOST_TO_CONTAINER in asked else ""


def mounts(inputs: BundleInputs) -> list[dict[str, Any]]:
    """All mounts, each destination once, sorted so that none covers an earlier one."""
    security, pod = inputs.container.security, inputs.pod.security.namespaces
    layers = default_mounts(
        privileged=security.privileged, user=pod.user, host_network=pod.network is NamespaceMode.NODE
    )
    layers += pod_mounts(inputs.files, readonly=security.readonly_rootfs)
    layers += [
        _bind(destination("image volume", path), source, "rbind", "rprivate", "rw")
        for path, source in inputs.volumes
    ]
    layers += [
        _bind(mount.target, mount.source, "rbind", "rprivate", "ro" if mount.readonly else "rw")
        for mount in inputs.defaults.mounts
    ]
    layers += [request_mount(n, mount, inputs.handler) for n, mount in enumerate(inputs.mounts)]
    layers += [_device_mount(edit) for edit in inputs.edits.mounts]
    return ordered(layers)


def _device_mount(edit: MountEdit) -> dict[str, Any]:
    """A mount that comes with a CDI device; without a type it is a bind."""
    path = destination("CDI mount, containerPath", edit.containerPath)
    options = list(edit.options)
    if edit.type in ("", "bind") and not {"bind", "rbind"} & set(options):
        options.insert(0, "rbind")
    return {
        "destination": path,
        "type": edit.type or "bind",
        "source": edit.hostPath,
        "options": options,
    }


def ordered(layers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last mount of each destination, by depth, then in the order in which the destinations came up.

    A mount that replaces /dev or /sys takes the defaults below it along: they would otherwise be mounted
    into the volume, or fail where the volume has no such directory.
    """
    last: dict[str, dict[str, Any]] = {}
    replaced: list[str] = []
    for mount in layers:
        path = mount["destination"]
        if path in last and mount["type"] == "bind" and last[path]["type"] != "bind":
            replaced.append(path)
        last[path] = mount
    kept = [
        mount
        for path, mount in last.items()
        if mount["type"] == "bind" or not any(path.startswith(f"{above}/") for above in replaced)
    ]
    return sorted(kept, key=lambda mount: mount["destination"].count("/"))
