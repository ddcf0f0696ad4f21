"""What a container's OCI configuration is made from: one value, complete, so that building needs no IO.

Whoever builds a bundle has looked at the machine before; members that are facts or resolved say what was
seen there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oci.bundle.template import BaseSpec
from oci.cdi import Edits
from oci.cgroup import CgroupPlace
from oci.facts import DeviceNode, HostFacts, ResolvedUser, SourceFacts
from oci.hooks import HookFile
from oci.image import ImageConfig
from oci.workload import ContainerId, ContainerSpec, MountRequest, PodId, PodSpec

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""What a container gets when the request says nothing: the set that Docker made customary."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """One resource limit; -1 is unlimited."""

    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerTraits:
    """What the runtime behind the pod's handler can do and what its table entry allows."""

    name: str = ""
    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False
    idmapped_mounts: bool = False
    seccomp: bool = True
    apparmor: bool = True
    selinux: bool = True
    annotations: tuple[str, ...] = ()  # globs of annotation keys that may reach the runtime
    privileged_without_host_devices: bool = False
    base: BaseSpec = BaseSpec()  # what every container of the handler is based on


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultMount:
    """A path of the host that every container gets."""

    source: str
    target: str
    readonly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleDefaults:
    """Settings of the node that fill what a request leaves open."""

    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    rlimits: Mapping[str, Rlimit] = field(
        default_factory=lambda: {"RLIMIT_NOFILE": Rlimit(soft=1024, hard=524288)}
    )
    env: tuple[tuple[str, str], ...] = ()
    pids_limit: int = 0  # 0 is none
    seccomp_when_unset: bool = False  # apply RuntimeDefault where the request names no profile
    seccomp_profile: Mapping[str, Any] | None = None  # replaces the built-in RuntimeDefault
    apparmor_profile: str = ""  # the loaded profile that RuntimeDefault means, "" if none is loaded
    inheritable_capabilities: bool = False
    masked_paths: tuple[str, ...] = ()  # beside the request's
    readonly_paths: tuple[str, ...] = ()
    mounts: tuple[DefaultMount, ...] = ()
    umask: int | None = None
    min_memory: int = 0  # bytes; the least limit that a request may have, where it has one
    device_ownership_from_user: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFiles:
    """Host paths of the files that the pod's containers share; "" leaves the mount out."""

    hosts: str = ""
    hostname: str = ""
    resolv_conf: str = ""
    shm: str = ""  # a directory with the pod's tmpfs; with host IPC it is /dev/shm


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespacePaths:
    """Where the container's namespaces are pinned; "" is the host's for those that may be the host's.

    `pid` is the pod's (mode POD) or the target container's (mode TARGET), and unused with the other modes.
    """

    network: str = ""
    ipc: str = ""
    uts: str = ""
    user: str = ""
    pid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedMount:
    """A requested mount with what its source turned out to be."""

    request: MountRequest
    source: SourceFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedDevice:
    """A device for the container: the node as it shall appear there, and its cgroup permissions."""

    node: DeviceNode
    permissions: str  # letters of "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleInputs:
    """Everything that decides a container's config.json."""

    id: ContainerId
    container: ContainerSpec
    pod_id: PodId
    pod: PodSpec
    image: ImageConfig
    image_name: str
    user: ResolvedUser
    working_dir: str = ""  # checked in the root file system; "" takes the request's or the image's
    host: HostFacts
    handler: HandlerTraits = HandlerTraits()
    defaults: BundleDefaults = BundleDefaults()
    files: PodFiles = PodFiles()
    namespaces: NamespacePaths = NamespacePaths()
    cgroup: CgroupPlace
    mounts: tuple[ResolvedMount, ...] = ()
    devices: tuple[ResolvedDevice, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()  # (container path, host directory) of the image's VOLUMEs
    localhost_seccomp: Mapping[str, Any] | None = None  # the profile that a LOCALHOST choice names
    selinux_level: str = ""  # the pod's own MCS level, where SELinux is on
    hooks: tuple[HookFile, ...] = ()  # the node's
    edits: Edits = Edits()  # of the CDI devices that the container asks for
    edit_devices: tuple[ResolvedDevice, ...] = ()  # the device nodes of `edits`, looked up
    rootfs: str = "rootfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxInitInputs:
    """Everything that decides the config.json of a pod's first process."""

    pod_id: PodId
    pod: PodSpec
    host: HostFacts
    cgroup: CgroupPlace
    args: tuple[str, ...] = ("/catatonit", "-P")
    handler: HandlerTraits = HandlerTraits()
    namespaces: NamespacePaths = NamespacePaths()  # `pid` is ignored: the init makes it or uses the host's
    files: PodFiles = PodFiles()
    sysctls: Mapping[str, str] = field(default_factory=dict)  # only for handlers with a kernel of their own
    selinux_level: str = ""
    rootfs: str = "rootfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A config.json, and in words whatever the host's means made smaller than the request."""

    config: dict[str, Any]
    notes: tuple[str, ...] = ()
