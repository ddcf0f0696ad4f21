"""The collaborators of the life cycle, as one frozen value that the composition root makes.

Verbs in `shim/pods/` and `shim/containers/` are functions over it. It holds no state of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from config.models import Settings
from oci.bundle.inputs import BundleDefaults, HandlerTraits
from oci.cni import NetworkRequest, NetworkResult
from oci.facts import HostFacts
from oci.policy import Choice
from oci.workload import ContainerId, ImageId, NamespaceOptions, PodId, PodSpec
from shim.cdi import Cdi
from shim.hooks import Hooks
from shim.images.additional import AdditionalStore
from shim.lifecycle.operations import Operations
from shim.paths import Paths
from shim.records import ContainerRecord, ImageRecord, PinnedNamespaces, PodRecord
from shim.rootfs import Owners, Rootfs
from shim.runtimes.driver import Driver
from shim.state.store import Store


class Handlers(Protocol):
    """Which runtime a handler name means (`shim/runtimes/handlers.py`)."""

    def driver(self, name: str) -> Driver:
        """Of new pods, "" for the default. Raises BadInput for an unknown, Unsupported for a broken one."""
        ...

    def choose(self, spec: PodSpec) -> Choice:
        """The handler that a new pod gets, and why. Raises BadInput."""
        ...

    def definition(self, name: str) -> str:
        """What the record of a new pod keeps of its handler."""
        ...

    def started(self, name: str, definition: str) -> Driver:
        """Of a pod that began with this definition."""
        ...

    def drivers(self) -> Iterable[Driver]:
        """Every driver that there is."""
        ...

    def traits(self, name: str, definition: str = "") -> HandlerTraits:
        """What a pod's handler can do and what its table entry allows."""
        ...

    async def revive(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Make drivers for the names and definitions of records, where today's table has others."""
        ...


class Network(Protocol):
    """Pod networks (`shim/network/`)."""

    def condition(self) -> tuple[bool, str, str]: ...

    async def attach(self, request: NetworkRequest) -> NetworkResult: ...

    async def detach(self, request: NetworkRequest) -> None: ...


class Namespaces(Protocol):
    """Pinned namespaces (`shim/namespaces/`)."""

    def plan(self, pod_id: PodId, options: NamespaceOptions) -> PinnedNamespaces:
        """Where they will be pinned; nothing is made yet."""
        ...

    async def pin(
        self,
        plan: PinnedNamespaces,
        options: NamespaceOptions,
        *,
        hostname: str,
        sysctls: Mapping[str, str],
    ) -> None:
        """Make them, with host name, loopback and sysctls; on failure some may exist: call `unpin`."""
        ...

    async def unpin(self, pinned: PinnedNamespaces) -> None:
        """Remove them; absent is success."""
        ...

    def intact(self, pinned: PinnedNamespaces) -> bool:
        """Whether every pinned path still is a namespace."""
        ...

    async def configure_interfaces(self, pins: PinnedNamespaces, sysctls: Mapping[str, str]) -> None:
        """Write the sysctls that name an interface, once it is attached."""
        ...

    def sweep(self) -> Mapping[PodId, PinnedNamespaces]:
        """What is pinned on the machine, by pod, whatever any record says. Blocking."""
        ...


class Images(Protocol):
    """The image store (`shim/images/`), as far as containers need it."""

    async def recover(self, containers: Iterable[ContainerId], pods: Iterable[PodId]) -> None: ...

    def find(self, name: str) -> ImageRecord | None: ...

    async def check(self, record: ImageRecord, name: str, namespace: str) -> None:
        """Raises Untrusted when the node's policy keeps pods of that namespace from the image."""
        ...

    async def acquire_rootfs(
        self, container_id: ContainerId, image_id: ImageId, directory: Path, owners: Owners | None = None
    ) -> Rootfs: ...

    async def release_rootfs(self, container_id: ContainerId) -> None: ...

    async def acquire_volume(
        self, holder: ContainerId, image_id: ImageId, owners: Owners | None = None
    ) -> Rootfs:
        """The image's files alone, read-only; `holder` is "POD.WORD"."""
        ...

    def volumes_of(self, pod_id: PodId) -> Mapping[ContainerId, ImageId]:
        """What was lent by `acquire_volume` to holders of that pod."""
        ...

    @property
    def additional(self) -> Sequence[AdditionalStore]:
        """The additional stores, as the last look has found them."""
        ...

    async def look_at_additional(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    settings: Settings
    paths: Paths
    host: HostFacts
    boot_id: str
    defaults: BundleDefaults
    store: Store
    operations: Operations
    handlers: Handlers
    network: Network
    namespaces: Namespaces
    images: Images
    cdi: Cdi
    hooks: Hooks
    now: Callable[[], int]  # nanoseconds since the epoch
    new_id: Callable[[], str]  # 64 hex digits, never the same twice
    no_user_namespaces: str = ""  # why pods cannot have one of their own here; "" where they can

    def driver_of(self, record: PodRecord | ContainerRecord) -> Driver:
        """The driver that a pod, or a container's pod, was started with, whatever the table says by now."""
        pod = record if isinstance(record, PodRecord) else self.store.pods.get(record.pod_id)
        return self.handlers.started(record.handler, "" if pod is None else pod.definition)

    def traits_of(self, pod: PodRecord) -> HandlerTraits:
        """What the handler that a pod was started with can do."""
        return self.handlers.traits(pod.handler, pod.definition)
