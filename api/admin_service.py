"""The admin service (`api/proto/admin.proto`): what the node's people ask and CRI has no words for.

Reads records of every realm, half made ones too. Not for kubelet: its socket is root's alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Protocol

from api.changes import Records, Watch
from api.ports import DaemonInfo
from api.proto import admin_pb2
from api.translate import admin, checks
from config.effective import Row
from oci import ids
from oci.errors import BadInput
from oci.reference import parse
from oci.registry_auth import Credentials
from oci.workload import ContainerId, PodId
from shim.doctor import Check
from shim.images.foreign import Taken
from shim.images.fsck import Progress
from shim.images.progress import DONE, PullProgress
from shim.images.pruning import Pruned
from shim.paths import Paths
from shim.records import ContainerRecord, ImageRecord, PodRecord
from shim.runtimes.table import Handler, HandlerTable
from shim.state.codec import encode
from shim.state.store import Change

PROGRESS_INTERVAL = 0.2
"""Seconds between two pictures of a running pull: what an eye can follow."""


class ImageVerbs(Protocol):
    """The image store's verbs that CRI does not have, and pulling."""

    async def pull(
        self, reference: str, credentials: Credentials | None = None, /, *, namespace: str = ""
    ) -> ImageRecord: ...
    def progress(self) -> Sequence[PullProgress]: ...
    async def explain(self, reference: str, /, *, namespace: str = "") -> Sequence[str]: ...
    async def import_archive(self, path: Path, /, *, names: Sequence[str] = ()) -> Sequence[ImageRecord]: ...
    async def import_store(
        self, kind: str, root: Path, /, *, images: Sequence[str] = (), dry_run: bool = False
    ) -> Sequence[Taken]: ...


class UpkeepVerbs(Protocol):
    """What is done with the store as a whole."""

    def fsck(self, *, fix: bool) -> AsyncGenerator[Progress, None]: ...
    async def prune(self, *, everything: bool, dry: bool) -> Sequence[Pruned]: ...
    def export(self, name: str, /) -> AsyncGenerator[bytes, None]: ...


class Handlers(Protocol):
    """Today's handlers, and those that only running pods still have."""

    @property
    def table(self) -> HandlerTable: ...
    def former(self) -> Sequence[Handler]: ...
    def began_with(self, name: str, definition: str, /) -> Handler | None: ...


class AdminService:
    """`daemon` and `settings` answer from memory; `doctor` looks at the machine or tries a handler."""

    def __init__(
        self,
        *,
        records: Records,
        paths: Paths,
        images: ImageVerbs,
        upkeep: UpkeepVerbs,
        handlers: Handlers,
        daemon: Callable[[], DaemonInfo],
        settings: Callable[[], Sequence[Row]],
        doctor: Callable[[str], Awaitable[Sequence[Check]]],
    ) -> None:
        self._records = records
        self._paths = paths
        self._images = images
        self._upkeep = upkeep
        self._handlers = handlers
        self._daemon = daemon
        self._settings = settings
        self._doctor = doctor

    async def daemon(self, _request: admin_pb2.DaemonRequest) -> admin_pb2.DaemonResponse:
        return admin.daemon(self._daemon(), resident=_resident())

    # Pods and containers

    async def objects(self, request: admin_pb2.ObjectsRequest) -> admin_pb2.ObjectsResponse:
        return admin_pb2.ObjectsResponse(
            pods=[admin.pod(pod) for pod in self._pods(request.realm)],
            containers=[admin.container(container) for container in self._containers(request.realm)],
        )

    async def inspect(self, request: admin_pb2.InspectRequest) -> admin_pb2.InspectResponse:
        pods = {pod.id: pod for pod in self._pods(request.realm)}
        containers = {container.id: container for container in self._containers(request.realm)}
        wanted = ids.resolve(
            request.id, [*map(str, pods), *map(str, containers)], what="pod or container", field="id"
        )
        if (pod := pods.get(PodId(wanted))) is not None:
            return _inspection("pod", pod, self._paths.pod(pod.id), "")
        container = containers[ContainerId(wanted)]
        directory = self._paths.container(container.id)
        spec = ""
        with suppress(FileNotFoundError):  # before the first start there is none
            spec = await asyncio.to_thread((directory / "config.json").read_text)
        return _inspection("container", container, directory, spec)

    def events(self, request: admin_pb2.EventsRequest) -> Watch[admin_pb2.Event, admin_pb2.Event]:
        def told(change: Change) -> list[admin_pb2.Event]:
            event = admin.event(change, time=time.time_ns())
            return [event] if event is not None and request.realm in ("", event.realm) else []

        return Watch(self._records, see=told, show=lambda event: event)

    # Images

    # The method of the service is called Import, which Python cannot say.
    async def import_(self, request: admin_pb2.ImportRequest) -> admin_pb2.ImportResponse:
        path = Path(checks.absolute(request.path, "path"))
        if request.kind:
            if request.names:
                raise BadInput("names: images of a store keep theirs")
            taken = await self._images.import_store(
                request.kind, path, images=tuple(request.images), dry_run=request.dry_run
            )
            return admin_pb2.ImportResponse(images=[admin.taken(one) for one in taken])
        if request.images or request.dry_run:
            raise BadInput("images, dry_run: are for stores (kind), an archive comes in whole")
        found = await self._images.import_archive(path, names=tuple(request.names))
        return admin_pb2.ImportResponse(images=[admin.imported(record) for record in found])

    async def pull(self, request: admin_pb2.PullRequest) -> AsyncGenerator[admin_pb2.PullProgress, None]:
        wanted = parse(request.reference, field="reference").canonical
        namespace = checks.word(request.namespace, "namespace")
        who = None
        if request.username or request.password:
            who = Credentials(username=request.username, password=request.password)
        pulling = asyncio.ensure_future(self._images.pull(request.reference, who, namespace=namespace))
        try:
            while not (await asyncio.wait({pulling}, timeout=PROGRESS_INTERVAL))[0]:
                for progress in self._progress(wanted):
                    if progress.stage != DONE:
                        yield admin.pull_progress(progress)
            last = admin_pb2.PullProgress(stage=DONE)
            for progress in self._progress(wanted):
                if progress.stage == DONE:
                    last = admin.pull_progress(progress)
            last.image_id = pulling.result().id
            yield last
        finally:
            if not pulling.done():
                pulling.cancel()
                await asyncio.wait({pulling})

    def _progress(self, wanted: str) -> list[PullProgress]:
        return [one for one in self._images.progress() if parse(one.reference).canonical == wanted]

    async def explain_pull(self, request: admin_pb2.ExplainPullRequest) -> admin_pb2.ExplainPullResponse:
        namespace = checks.word(request.namespace, "namespace")
        lines = await self._images.explain(request.reference, namespace=namespace)
        return admin_pb2.ExplainPullResponse(lines=lines)

    async def pulls(self, _request: admin_pb2.PullsRequest) -> admin_pb2.PullsResponse:
        return admin_pb2.PullsResponse(pulls=[admin.running_pull(one) for one in self._images.progress()])

    async def fsck(self, request: admin_pb2.FsckRequest) -> AsyncGenerator[admin_pb2.FsckProgress, None]:
        async with aclosing(self._upkeep.fsck(fix=request.fix)) as pictures:
            async for progress in pictures:
                yield admin.fsck_progress(progress, self._named)

    def _named(self, holder: ContainerId) -> str:
        """A holder of layers as people know it: a container, or a pod that mounts an image."""
        container = self._records.containers.get(holder)
        pod_id = container.pod_id if container is not None else PodId(holder.partition(".")[0])
        pod = self._records.pods.get(pod_id)
        where = f"{pod.spec.metadata.namespace}/{pod.spec.metadata.name}" if pod is not None else pod_id
        return where if container is None else f"{where}/{container.spec.metadata.name}"

    async def prune(self, request: admin_pb2.PruneRequest) -> admin_pb2.PruneResponse:
        gone = await self._upkeep.prune(everything=request.all, dry=request.dry_run)
        return admin_pb2.PruneResponse(
            pruned=[admin_pb2.Pruned(what=one.what, bytes=one.bytes) for one in gone]
        )

    async def export(self, request: admin_pb2.ExportRequest) -> AsyncGenerator[admin_pb2.ExportPart, None]:
        async with aclosing(self._upkeep.export(request.image)) as parts:
            async for part in parts:
                yield admin_pb2.ExportPart(content=part)

    # The node

    async def handlers(self, _request: admin_pb2.HandlersRequest) -> admin_pb2.HandlersResponse:
        began_with = [
            self._handlers.began_with(pod.handler, pod.definition) for pod in self._records.pods.values()
        ]
        return admin.handlers(self._handlers.table, self._handlers.former(), began_with)

    async def effective_config(
        self, _request: admin_pb2.EffectiveConfigRequest
    ) -> admin_pb2.EffectiveConfigResponse:
        return admin_pb2.EffectiveConfigResponse(settings=[admin.setting(row) for row in self._settings()])

    async def doctor(self, request: admin_pb2.DoctorRequest) -> admin_pb2.DoctorResponse:
        found = await self._doctor(request.handler)
        return admin_pb2.DoctorResponse(checks=[admin.check(check) for check in found])

    def _pods(self, realm: str) -> list[PodRecord]:
        return [pod for pod in self._records.pods.values() if realm in ("", pod.realm)]

    def _containers(self, realm: str) -> list[ContainerRecord]:
        return [one for one in self._records.containers.values() if realm in ("", one.realm)]


def _inspection(
    kind: str, record: PodRecord | ContainerRecord, directory: Path, spec: str
) -> admin_pb2.InspectResponse:
    return admin_pb2.InspectResponse(
        kind=kind,
        realm=record.realm,
        id=record.id,
        record=json.dumps(encode(record)),
        request=json.dumps(encode(record.spec)),
        spec=spec,
        directory=str(directory),
    )


def _resident() -> int:
    """Bytes of memory that this process holds: proc(5), statm. procfs does not block."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
