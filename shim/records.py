"""What Crisp remembers about each object: the request, the decisions, and what was last seen.

A record is a frozen value; `shim/state/` keeps them. Times are nanoseconds since the Unix epoch, 0 is unset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from oci.cni import NetworkResult
from oci.image import ImageConfig
from oci.workload import ContainerId, ContainerSpec, ImageId, PodId, PodSpec, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRef:
    """A process that cannot be confused with a later one of the same number: proc(5) stat fields 1 and 22."""

    pid: int
    start_time: int  # clock ticks after boot


class PodState(Enum):
    CREATING = "creating"
    READY = "ready"
    STOPPING = "stopping"
    NOTREADY = "notready"
    REMOVING = "removing"


class ContainerState(Enum):
    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"
    REMOVING = "removing"


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedNamespaces:
    """Paths of the bind mounts that keep the pod's namespaces; "" means the host's (or none asked for)."""

    network: str = ""
    ipc: str = ""
    uts: str = ""
    user: str = ""
    pid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRecord:
    id: PodId
    realm: str
    spec: PodSpec
    state: PodState
    created_at: int
    handler: str  # the resolved handler's name, never ""
    boot_id: str = ""  # /proc/sys/kernel/random/boot_id of the boot in which it was set up
    namespaces: PinnedNamespaces = PinnedNamespaces()
    network: NetworkResult | None = None
    network_owed: bool = False  # a CNI ADD was begun and no DEL has succeeded since
    init: ProcessRef | None = None  # catatonit, where the pod needs a first process
    init_monitor: ProcessRef | None = None
    overhead: Resources | None = None  # as UpdatePodSandboxResources told last; None is the request's
    resources: Resources | None = None
    fault: str = ""  # what could not be undone, in words; the clean-up is still owed
    definition: str = ""  # of the handler, when the pod was started; "" in records older than this member
    handler_reason: str = ""  # why it got this handler, in words
    selinux_level: str = ""  # the pod's own, such as "s0:c1,c2"; "" where SELinux is off


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    id: ContainerId
    pod_id: PodId
    realm: str
    spec: ContainerSpec
    state: ContainerState
    created_at: int
    handler: str
    image_id: ImageId
    image_ref: str = ""  # a repo digest if one is known, else the id
    log_path: str = ""  # absolute; "" when logging is off
    cgroup: str = ""  # the path below each cgroup hierarchy, as the kernel shows it
    stop_signal: str = "SIGTERM"
    uid: int = 0
    gid: int = 0
    supplemental_groups: tuple[int, ...] = ()
    process: ProcessRef | None = None
    monitor: ProcessRef | None = None
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    fault: str = ""
    resources: Resources | None = None  # after UpdateContainerResources; None is the request's
    image_mounts: tuple[ImageId, ...] = ()  # of each mount of the request, "" for those of another kind

    @property
    def limits(self) -> Resources:
        """The limits in force, or at the start."""
        return self.spec.resources if self.resources is None else self.resources


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSignature:
    """A signature that lay beside an image when it came; `content` is base64."""

    content: str
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Why an image was let in: what is needed to judge again when the policy has changed."""

    source: str  # "docker" (a registry) or an archive's transport, as policies name them
    name: str  # the canonical reference, or the archive's path
    digest: str  # of what the name led to; "" for an archive
    policy: str  # a digest of the requirements and keys that were met
    media_type: str = ""
    size: int = 0
    signatures: tuple[KeptSignature, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image: all names and digests that point at one configuration."""

    id: ImageId
    tags: tuple[str, ...]  # "docker.io/library/busybox:latest"
    digests: tuple[str, ...]  # "docker.io/library/busybox@sha256:…"
    manifest_digest: str
    config: ImageConfig
    layers: tuple[str, ...]  # diff ids, base first; one made here may follow the configuration's
    size: int  # bytes that the image's layers and documents take in the store
    pinned: bool = False
    created_at: int = 0
    annotations: Mapping[str, str] = field(default_factory=dict)
    admissions: tuple[Admission, ...] = ()  # one a name or archive


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """One stored layer, known by the digest of its uncompressed tar."""

    diff_id: str
    form: str  # "erofs" or "directory"
    size: int  # bytes on disk
    inodes: int
    created_at: int
    blob: str = ""  # digest of the compressed stream, where that is kept beside it
    blob_size: int = 0  # bytes on disk of that
    seal: str = ""  # digest of what was made of the tar (`shim/images/seal.py`); "" in older records
