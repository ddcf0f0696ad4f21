"""Verbs that note how they were called and answer with records."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.ports import Condition, NodeStatus
from oci.errors import Absent
from oci.registry_auth import Credentials
from oci.workload import ContainerId, ContainerSpec, ImageId, PodId, PodSpec, Resources
from shim.collector import PodMetrics
from shim.images.foreign import Taken
from shim.images.progress import PullProgress
from shim.records import ContainerRecord, ImageRecord, PodRecord
from shim.runtimes.driver import ExecResult, Session, Size
from shim.state.store import Change
from shim.stats import ContainerUsage, CpuUse, FilesystemUse, PodUsage
from tests.unit.api import records


@dataclass
class Pods:
    held: list[PodRecord] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    async def run(self, spec: PodSpec, /, *, realm: str) -> PodRecord:
        self.calls.append(("run", realm, spec))
        return records.pod(spec=spec, realm=realm)

    async def stop(self, realm: str, id_: str, /) -> None:
        self.calls.append(("stop", realm, id_))

    async def remove(self, realm: str, id_: str, /) -> None:
        self.calls.append(("remove", realm, id_))

    def get(self, realm: str, id_: str, /) -> PodRecord:
        for record in self.all(realm):
            if record.id == id_:
                return record
        raise Absent(f"pod sandbox {id_} does not exist")

    def all(self, realm: str, /) -> Sequence[PodRecord]:
        return [record for record in self.held if record.realm == realm]

    async def update(
        self, realm: str, id_: str, /, *, overhead: Resources | None, resources: Resources | None
    ) -> None:
        self.calls.append(("update", realm, id_, overhead, resources))

    async def stats(self, realm: str, id_: str, /) -> PodUsage:
        return PodUsage(id=self.get(realm, id_).id, cpu=CpuUse(timestamp=9))

    async def all_stats(self, realm: str, ids: Sequence[str], /) -> Sequence[PodUsage]:
        self.calls.append(("all_stats", realm, tuple(ids)))
        return [PodUsage(id=PodId(id_), cpu=CpuUse(timestamp=9)) for id_ in ids]

    async def metrics(self, realm: str, /) -> Sequence[PodMetrics]:
        return [PodMetrics(id=pod.id, network=None, containers=()) for pod in self.all(realm)]

    def check_forward(self, realm: str, id_: str, /) -> PodId:
        return self.get(realm, id_).id

    async def dial(self, realm: str, id_: str, port: int, /) -> socket.socket:
        self.calls.append(("dial", realm, id_, port))
        raise Absent(f"port {port}: nothing answers")

    async def describe(self, pod: PodRecord, /) -> Mapping[str, Any]:
        return {"pid": 1, "of": pod.id}


@dataclass
class Containers:
    held: list[ContainerRecord] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    result: ExecResult = ExecResult(stdout=b"out", stderr=b"err", exit_code=3)

    async def create(
        self, realm: str, pod_id: str, spec: ContainerSpec, pod_spec: PodSpec, /
    ) -> ContainerRecord:
        self.calls.append(("create", realm, pod_id, spec, pod_spec))
        return records.container(spec=spec, realm=realm)

    async def start(self, realm: str, id_: str, /) -> None:
        self.calls.append(("start", realm, id_))

    async def stop(self, realm: str, id_: str, grace: float, /) -> None:
        self.calls.append(("stop", realm, id_, grace))

    async def remove(self, realm: str, id_: str, /) -> None:
        self.calls.append(("remove", realm, id_))

    def get(self, realm: str, id_: str, /) -> ContainerRecord:
        for record in self.all(realm):
            if record.id == id_:
                return record
        raise Absent(f"container {id_} does not exist")

    def all(self, realm: str, /) -> Sequence[ContainerRecord]:
        return [record for record in self.held if record.realm == realm]

    async def exec_sync(
        self, realm: str, id_: str, cmd: tuple[str, ...], limit: float | None, /
    ) -> ExecResult:
        self.calls.append(("exec_sync", realm, id_, cmd, limit))
        return self.result

    def check_exec(self, realm: str, id_: str, /) -> ContainerId:
        return self.get(realm, id_).id

    def check_attach(self, realm: str, id_: str, /, *, terminal: bool) -> ContainerId:
        return self.get(realm, id_).id

    async def exec_stream(self, realm: str, id_: str, cmd: tuple[str, ...], /, **asked: Any) -> Session:
        self.calls.append(("exec_stream", realm, id_, cmd, asked))
        raise Absent("the container has ended")

    async def attach(self, realm: str, id_: str, /, *, size: Size | None) -> Session:
        self.calls.append(("attach", realm, id_, size))
        raise Absent("the container has ended")

    async def checkpoint(self, realm: str, id_: str, location: Path, limit: float | None, /) -> None:
        self.calls.append(("checkpoint", realm, id_, location, limit))

    async def reopen_log(self, realm: str, id_: str, /) -> None:
        self.calls.append(("reopen_log", realm, id_))

    async def update(self, realm: str, id_: str, change: Resources, /) -> None:
        self.calls.append(("update", realm, id_, change))

    async def stats(self, realm: str, id_: str, /) -> ContainerUsage:
        return ContainerUsage(id=self.get(realm, id_).id, cpu=CpuUse(timestamp=9))

    async def all_stats(self, realm: str, ids: Sequence[str], /) -> Sequence[ContainerUsage]:
        self.calls.append(("all_stats", realm, tuple(ids)))
        return [ContainerUsage(id=ContainerId(id_), cpu=CpuUse(timestamp=9)) for id_ in ids]

    async def describe(self, container: ContainerRecord, /) -> Mapping[str, Any]:
        return {"pid": 2, "of": container.id}


@dataclass
class Images:
    held: list[ImageRecord] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    running: tuple[PullProgress, ...] = ()

    def find(self, name: str, /) -> ImageRecord | None:
        return next((one for one in self.held if name in (one.id, *one.tags)), None)

    def all(self) -> Sequence[ImageRecord]:
        return self.held

    async def pull(
        self,
        reference: str,
        credentials: Credentials | None = None,
        *,
        annotations: Mapping[str, str] | None = None,
        namespace: str = "",
    ) -> ImageRecord:
        self.calls.append(("pull", reference, credentials, annotations, namespace))
        return records.image()

    async def remove(self, name: str, /) -> None:
        self.calls.append(("remove", name))

    async def filesystem_usage(self) -> FilesystemUse:
        return FilesystemUse(timestamp=5, mountpoint="/var/lib/crisp", used_bytes=6, inodes_used=7)

    async def writable_usage(self) -> FilesystemUse:
        return await self.filesystem_usage()

    def progress(self) -> tuple[PullProgress, ...]:
        return self.running

    async def explain(self, reference: str, /, *, namespace: str = "") -> Sequence[str]:
        return (f"would ask for {reference} for {namespace}",)

    async def import_store(
        self, kind: str, root: Path, /, *, images: Sequence[str] = (), dry_run: bool = False
    ) -> Sequence[Taken]:
        self.calls.append(("import_store", kind, root, images, dry_run))
        good = Taken(names=("r.example/a:1",), digest="sha256:1", size=5, image_id=ImageId("sha256:2"))
        return (good, Taken(names=("b:1",), digest="sha256:3", size=0, problem="layer missing"))

    async def import_archive(self, path: Path, /, *, names: Sequence[str] = ()) -> Sequence[ImageRecord]:
        self.calls.append(("import", path, tuple(names)))
        return [records.image()]


class Node:
    version = "1.2.3"
    systemd_cgroups = True

    async def status(self) -> NodeStatus:
        return NodeStatus(conditions=(Condition(type="RuntimeReady", status=True),), handlers=())

    async def describe(self) -> Mapping[str, Any]:
        return {"config": {"stateDir": "/run/crisp"}}


@dataclass
class Records:
    """The state store; `announce` tells its listeners after a change was entered."""

    pods: dict[PodId, PodRecord] = field(default_factory=dict)
    containers: dict[ContainerId, ContainerRecord] = field(default_factory=dict)
    listeners: list[Callable[[Change], None]] = field(default_factory=list)

    def containers_of(self, pod_id: PodId, /) -> list[ContainerRecord]:
        return [record for record in self.containers.values() if record.pod_id == pod_id]

    def subscribe(self, listener: Callable[[Change], None], /) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def put(self, record: PodRecord | ContainerRecord) -> None:
        before: PodRecord | ContainerRecord | None
        if isinstance(record, PodRecord):
            before = self.pods.get(record.id)
            self.pods[record.id] = record
        else:
            before = self.containers.get(record.id)
            self.containers[record.id] = record
        self._tell(before, record)

    def delete(self, record: PodRecord | ContainerRecord) -> None:
        if isinstance(record, PodRecord):
            del self.pods[record.id]
        else:
            del self.containers[record.id]
        self._tell(record, None)

    def _tell(
        self, before: PodRecord | ContainerRecord | None, after: PodRecord | ContainerRecord | None
    ) -> None:
        for listener in self.listeners:
            listener(Change(0, before, after))
