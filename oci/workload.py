"""What a pod and a container are asked to be, free of any wire format.

`api/translate/` makes these from CRI messages; `shim/` keeps them in records; `oci/bundle/` turns them into
an OCI runtime configuration. Two equal requests are equal values: that is how a retry is recognised.
Zero, empty and None mean "not asked for" unless a member says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NewType

PodId = NewType("PodId", str)
ContainerId = NewType("ContainerId", str)
ImageId = NewType("ImageId", str)  # "sha256:" + hex digest of the image configuration


class NamespaceMode(Enum):
    """Whose namespace a process lives in (CRI NamespaceMode)."""

    POD = "pod"
    CONTAINER = "container"
    NODE = "node"
    TARGET = "target"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMapping:
    """One line of uid_map or gid_map (user_namespaces(7))."""

    host_id: int
    container_id: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserNamespace:
    """A pod's own user namespace; the absence of one (None) means the host's."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]

    def host_uid(self, uid: int) -> int | None:
        """The id that the host knows the pod's user by; None for one that is not mapped."""
        return _on_host(self.uids, uid)

    def host_gid(self, gid: int) -> int | None:
        """As `host_uid`, of a group."""
        return _on_host(self.gids, gid)


def _on_host(mappings: tuple[IdMapping, ...], inside: int) -> int | None:
    for line in mappings:
        if line.container_id <= inside < line.container_id + line.length:
            return line.host_id + inside - line.container_id
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceOptions:
    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.POD
    ipc: NamespaceMode = NamespaceMode.POD
    target_id: str = ""
    user: UserNamespace | None = None
    user_requested: bool = False  # userns_options was present in the request, with whatever mode


class ProfileKind(Enum):
    RUNTIME_DEFAULT = "runtime-default"
    UNCONFINED = "unconfined"
    LOCALHOST = "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityProfile:
    """A seccomp or AppArmor choice; `ref` (a path, or a profile name) only with LOCALHOST."""

    kind: ProfileKind
    ref: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelinuxOption:
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Names as the request wrote them; CAP_ prefixes and ALL are resolved in `oci/bundle/capabilities.py`."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    add_ambient: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChoice:
    """Who the process should be: at most one of `uid` and `username` is set; both unset means the image's."""

    uid: int | None = None
    username: str = ""
    gid: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    strict_groups: bool = False  # SupplementalGroupsPolicy Strict: no groups from the image's /etc/group


@dataclass(frozen=True, slots=True, kw_only=True)
class HugepageLimit:
    page_size: str  # "2MB"
    limit: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """LinuxContainerResources: periods and quotas in microseconds, memory in bytes; 0 or empty is unset."""

    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    memory_limit: int = 0
    memory_swap_limit: int = 0
    oom_score_adj: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    unified: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodMetadata:
    name: str
    namespace: str
    uid: str
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerMetadata:
    name: str
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsConfig:
    """Present but empty means an empty resolv.conf; absent (None) means a copy of the host's."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    protocol: str  # "tcp", "udp" or "sctp"
    container_port: int
    host_port: int
    host_ip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSecurity:
    namespaces: NamespaceOptions = NamespaceOptions()
    user: UserChoice = UserChoice()
    privileged: bool = False
    readonly_rootfs: bool = False
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None
    selinux: SelinuxOption | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """PodSandboxConfig with the handler that the request named ("" is the default handler)."""

    metadata: PodMetadata
    hostname: str = ""
    log_directory: str = ""
    dns: DnsConfig | None = None
    port_mappings: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    security: PodSecurity = PodSecurity()
    overhead: Resources | None = None
    resources: Resources | None = None
    handler: str = ""


class Propagation(Enum):
    PRIVATE = "private"
    HOST_TO_CONTAINER = "host-to-container"
    BIDIRECTIONAL = "bidirectional"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """Which image: `image` is what to run, `user_specified_image` only the name that the user wrote."""

    image: str
    user_specified_image: str = ""
    runtime_handler: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRequest:
    container_path: str
    host_path: str = ""
    readonly: bool = False
    recursive_read_only: bool = False
    selinux_relabel: bool = False
    propagation: Propagation = Propagation.PRIVATE
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    image: ImageSpec | None = None
    image_sub_path: str = ""
    options: tuple[str, ...] = ()  # CRI mount_options: noexec, nodev, nosuid


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    container_path: str
    host_path: str
    permissions: str  # letters of "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSecurity:
    capabilities: Capabilities = Capabilities()
    privileged: bool = False
    namespaces: NamespaceOptions = NamespaceOptions()
    selinux: SelinuxOption | None = None
    user: UserChoice = UserChoice()
    readonly_rootfs: bool = False
    no_new_privs: bool = False
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """ContainerConfig. Environment values are text; bytes that are not UTF-8 are surrogate escapes."""

    metadata: ContainerMetadata
    image: ImageSpec
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    envs: tuple[tuple[str, str], ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    devices: tuple[DeviceRequest, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""  # relative to the pod's log_directory
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: Resources = Resources()
    security: ContainerSecurity = ContainerSecurity()
    stop_signal: str = ""  # "SIGTERM"; "" leaves it to the image
