"""Records, handlers, settings and findings -> the admin service's messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from api.ports import DaemonInfo
from api.proto import admin_pb2
from config.effective import Row
from oci.workload import ContainerId
from shim.doctor import Check, Verdict
from shim.images.foreign import Taken
from shim.images.fsck import Progress
from shim.images.progress import PullProgress
from shim.records import ContainerRecord, ContainerState, ImageRecord, PodRecord, PodState
from shim.runtimes.table import Handler, HandlerTable
from shim.state.store import Change

REMOVED = "removed"

_VERDICTS = {
    Verdict.OK: admin_pb2.OK,
    Verdict.WARNING: admin_pb2.WARNING,
    Verdict.PROBLEM: admin_pb2.PROBLEM,
}


def daemon(info: DaemonInfo, *, resident: int) -> admin_pb2.DaemonResponse:
    """`resident` in bytes."""
    return admin_pb2.DaemonResponse(
        version=info.version,
        pid=info.pid,
        started_at=info.started_at,
        ready_at=info.ready_at,
        state_directory=info.state_directory,
        run_directory=info.run_directory,
        realms=[admin_pb2.Realm(name=name, sockets=sockets) for name, sockets in info.realms.items()],
        resident_bytes=resident,
        streaming_certificate=info.streaming_certificate,
    )


def pod(record: PodRecord) -> admin_pb2.Pod:
    live = record.network if record.state is PodState.READY else None
    return admin_pb2.Pod(
        id=record.id,
        realm=record.realm,
        namespace=record.spec.metadata.namespace,
        name=record.spec.metadata.name,
        uid=record.spec.metadata.uid,
        attempt=record.spec.metadata.attempt,
        state=record.state.value,
        created_at=record.created_at,
        handler=record.handler,
        addresses=live.addresses if live else (),
        labels=record.spec.labels,
        annotations=record.spec.annotations,
        fault=record.fault,
    )


def container(record: ContainerRecord) -> admin_pb2.Container:
    running = record.state in (ContainerState.RUNNING, ContainerState.STARTING)
    return admin_pb2.Container(
        id=record.id,
        pod_id=record.pod_id,
        realm=record.realm,
        name=record.spec.metadata.name,
        attempt=record.spec.metadata.attempt,
        state=record.state.value,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        exit_code=record.exit_code,
        reason=record.reason,
        message=record.message,
        image=record.spec.image.user_specified_image or record.spec.image.image,
        image_id=record.image_id,
        handler=record.handler,
        pid=record.process.pid if record.process and running else 0,
        log_path=record.log_path,
        labels=record.spec.labels,
        annotations=record.spec.annotations,
        fault=record.fault,
    )


def event(change: Change, *, time: int) -> admin_pb2.Event | None:
    """None for what people do not follow: single layers."""
    record = change.after if change.after is not None else change.before
    match record:
        case PodRecord():
            kind, realm, id_, state = "pod", record.realm, str(record.id), record.state.value
        case ContainerRecord():
            kind, realm, id_, state = "container", record.realm, str(record.id), record.state.value
        case ImageRecord():
            kind, realm, id_, state = "image", "", str(record.id), "present"
        case _:
            return None
    return admin_pb2.Event(
        sequence=change.seq,
        time=time,
        kind=kind,
        realm=realm,
        id=id_,
        state=REMOVED if change.after is None else state,
    )


def pull_progress(progress: PullProgress) -> admin_pb2.PullProgress:
    return admin_pb2.PullProgress(
        stage=progress.stage,
        endpoint=progress.endpoint,
        origin=progress.origin,
        credentials=progress.credential_source,
        received=progress.received,
        total=progress.total,
        rate=progress.rate,
        layers=[
            admin_pb2.LayerProgress(
                digest=layer.digest,
                phase=layer.phase.value,
                received=layer.received,
                total=layer.total,
                kept=layer.kept,
            )
            for layer in progress.layers
        ],
    )


def running_pull(progress: PullProgress) -> admin_pb2.RunningPull:
    return admin_pb2.RunningPull(
        reference=progress.reference, started_at=progress.started_at, progress=pull_progress(progress)
    )


def fsck_progress(progress: Progress, name: Callable[[ContainerId], str]) -> admin_pb2.FsckProgress:
    """`name` says for people who holds a layer."""
    return admin_pb2.FsckProgress(
        read=progress.read,
        total=progress.total,
        layers=progress.layers,
        done=progress.done,
        findings=[
            admin_pb2.Finding(
                problem=finding.problem,
                layer=finding.layer,
                images=finding.images,
                pods=[name(holder) for holder in finding.holders],
                repaired=finding.repaired,
                failure=finding.failure,
            )
            for finding in progress.findings
        ],
    )


def imported(record: ImageRecord) -> admin_pb2.ImportedImage:
    return admin_pb2.ImportedImage(id=record.id, names=record.tags or record.digests, size=record.size)


def taken(image: Taken) -> admin_pb2.ImportedImage:
    """One of another runtime's store."""
    return admin_pb2.ImportedImage(
        id=image.image_id or "",
        names=image.names,
        size=image.size,
        digest=image.digest,
        problem=image.problem,
    )


def handlers(
    table: HandlerTable, former: Sequence[Handler], began_with: Sequence[Handler | None]
) -> admin_pb2.HandlersResponse:
    """`former` are those that only running pods still have; `began_with` has one for each pod."""

    def usable_handler(entry: Handler, *, is_former: bool) -> admin_pb2.Handler:
        return admin_pb2.Handler(
            name=entry.name,
            kind=entry.kind,
            binary=str(entry.binary),
            version=entry.version.version,
            is_default=entry.name == table.default and not is_former,
            origin=entry.source,
            features={
                member.name: bool(getattr(entry.features, member.name))
                for member in dataclasses.fields(entry.features)
            },
            pods=began_with.count(entry),
            notes=entry.quirks.told,
            root=str(entry.root),
            former=is_former,
        )

    usable = [usable_handler(entry, is_former=False) for entry in table.handlers.values()]
    usable += [usable_handler(entry, is_former=True) for entry in former]
    broken = [
        admin_pb2.Handler(
            name=entry.name,
            is_default=entry.name == table.default,
            problem=entry.reason,
            origin=entry.source,
        )
        for entry in table.invalid.values()
    ]
    return admin_pb2.HandlersResponse(handlers=[*usable, *broken], default_origin=table.default_source)


def setting(row: Row) -> admin_pb2.Setting:
    return admin_pb2.Setting(key=row.key, value=row.value, origin=row.origin)


def check(found: Check) -> admin_pb2.Check:
    return admin_pb2.Check(
        area=found.area,
        name=found.name,
        verdict=_VERDICTS[found.verdict],
        found=found.found,
        advice=found.advice,
    )
