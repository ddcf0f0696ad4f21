"""What the services need from below: the domain's verbs as protocols, and the admin service's answers.

The composition root passes objects that have these methods. Nothing here knows protobuf or gRPC.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from oci.registry_auth import Credentials
from oci.workload import ContainerId, ContainerSpec, PodId, PodSpec, Resources
from shim.collector import PodMetrics
from shim.records import ContainerRecord, ImageRecord, PodRecord
from shim.runtimes.driver import ExecResult, HandlerFeatures, Output, Session, Size
from shim.stats import ContainerUsage, PodUsage


class Pods(Protocol):
    """The verbs of pods. Ids may be prefixes. Stop and remove of what does not exist succeed."""

    async def run(self, spec: PodSpec, /, *, realm: str) -> PodRecord: ...
    async def stop(self, realm: str, id: str, /) -> None: ...
    async def remove(self, realm: str, id: str, /) -> None: ...
    def get(self, realm: str, id: str, /) -> PodRecord:
        """Raises Absent."""
        ...

    def all(self, realm: str, /) -> Sequence[PodRecord]: ...
    async def update(
        self, realm: str, id: str, /, *, overhead: Resources | None, resources: Resources | None
    ) -> None: ...
    async def stats(self, realm: str, id: str, /) -> PodUsage:
        """Raises Absent, WrongState unless the pod is READY."""
        ...

    async def all_stats(self, realm: str, ids: Sequence[str], /) -> Sequence[PodUsage]:
        """Those of `ids` that are READY; one that ended meanwhile is left out."""
        ...

    async def metrics(self, realm: str, /) -> Sequence[PodMetrics]: ...
    def check_forward(self, realm: str, id: str, /) -> PodId:
        """The whole id. Raises Absent, WrongState."""
        ...

    async def dial(self, realm: str, id: str, port: int, /) -> socket.socket:
        """A connection to a port of the pod's loopback."""
        ...

    async def describe(self, pod: PodRecord, /) -> Mapping[str, Any]:
        """For the verbose status: anything that JSON can say."""
        ...


class Containers(Protocol):
    """The verbs of containers. Ids may be prefixes. Stop and remove of what does not exist succeed."""

    async def create(
        self, realm: str, pod_id: str, spec: ContainerSpec, pod_spec: PodSpec, /
    ) -> ContainerRecord: ...
    async def start(self, realm: str, id: str, /) -> None: ...
    async def stop(self, realm: str, id: str, grace: float, /) -> None: ...
    async def remove(self, realm: str, id: str, /) -> None: ...
    def get(self, realm: str, id: str, /) -> ContainerRecord:
        """Raises Absent."""
        ...

    def all(self, realm: str, /) -> Sequence[ContainerRecord]: ...
    async def update(self, realm: str, id: str, change: Resources, /) -> None:
        """Other limits for a created or running container; unset members keep what is."""
        ...

    async def exec_sync(
        self, realm: str, id: str, cmd: tuple[str, ...], limit: float | None, /
    ) -> ExecResult: ...
    def check_exec(self, realm: str, id: str, /) -> ContainerId:
        """The whole id. Raises Absent, WrongState."""
        ...

    def check_attach(self, realm: str, id: str, /, *, terminal: bool) -> ContainerId:
        """The whole id. Raises Absent, WrongState, BadInput."""
        ...

    async def exec_stream(
        self,
        realm: str,
        id: str,
        cmd: tuple[str, ...],
        /,
        *,
        terminal: bool,
        stdin: bool,
        outputs: frozenset[Output],
        size: Size | None,
    ) -> Session: ...
    async def attach(self, realm: str, id: str, /, *, size: Size | None) -> Session: ...
    async def reopen_log(self, realm: str, id: str, /) -> None: ...
    async def checkpoint(self, realm: str, id: str, location: Path, limit: float | None, /) -> None: ...
    async def stats(self, realm: str, id: str, /) -> ContainerUsage: ...
    async def all_stats(self, realm: str, ids: Sequence[str], /) -> Sequence[ContainerUsage]:
        """Those of `ids` that run; one that ended meanwhile is left out."""
        ...

    async def describe(self, container: ContainerRecord, /) -> Mapping[str, Any]: ...


class Images(Protocol):
    def find(self, name: str, /) -> ImageRecord | None:
        """By id, prefix of one, tag or digest. Raises BadInput for what cannot be a name."""
        ...

    def all(self) -> Sequence[ImageRecord]: ...
    async def pull(
        self,
        reference: str,
        credentials: Credentials | None = None,
        *,
        annotations: Mapping[str, str] | None = None,
        namespace: str = "",
    ) -> ImageRecord: ...
    async def remove(self, name: str, /) -> None: ...
    async def filesystem_usage(self) -> FilesystemUse: ...
    async def writable_usage(self) -> FilesystemUse: ...


class FilesystemUse(Protocol):
    """What something takes on the file system of `mountpoint` (a str or Path); `timestamp` in ns, not 0."""

    @property
    def mountpoint(self) -> object: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def inodes_used(self) -> int: ...
    @property
    def timestamp(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One line of Status: `reason` is one word in camel case, empty when all is well."""

    type: str
    status: bool
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerStatus:
    """A usable handler as Status shows it. The default one has an entry with an empty name too."""

    name: str
    features: HandlerFeatures


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """`features` of the daemon are promises that a request field is honoured, not merely accepted."""

    conditions: tuple[Condition, ...]
    handlers: tuple[HandlerStatus, ...]
    default_handler: str = ""  # one of `handlers`, or "" when none is usable
    supplemental_groups_policy: bool = True
    user_namespaces_host_network: bool = False
    mount_options: bool = False


class Node(Protocol):
    """What belongs to no pod."""

    @property
    def version(self) -> str:
        """Crisp's own, semantic."""
        ...

    @property
    def systemd_cgroups(self) -> bool:
        """The cgroup driver; constant while the daemon lives."""
        ...

    async def status(self) -> NodeStatus: ...
    async def describe(self) -> Mapping[str, Any]:
        """For the verbose Status: each value becomes one JSON text."""
        ...


# What the admin service answers with, beyond records.


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonInfo:
    version: str
    pid: int
    started_at: int
    ready_at: int  # 0 while recovery runs
    state_directory: str
    run_directory: str
    realms: Mapping[str, tuple[str, ...]]  # name -> paths of its CRI sockets
    streaming_certificate: bytes = b""  # DER; empty without TLS
