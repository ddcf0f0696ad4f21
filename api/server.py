"""The gRPC servers of one daemon: kubelet's sockets, the realm of `crisp run`, the admin service."""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import grpc.aio

from api.admin_service import AdminService
from api.binding import bind
from api.cadvisor import CadvisorServer
from api.client import MESSAGE_LIMIT
from api.composition import Assembly
from api.door import Door
from api.image_service import ImageService
from api.node_status import NodeReport, crisp_version
from api.plain_http import PlainHttp
from api.ports import DaemonInfo
from api.proto import admin_pb2, cri_pb2
from api.runtime_service import RuntimeService
from api.scrape import Scrape
from api.sockets import protect
from api.streaming.server import Limits, StreamingServer
from api.streaming.tls import Tls, TlsFiles
from api.unbuilt import UNBUILT
from config.effective import explain
from config.models import StreamingSettings
from oci.errors import Internal
from oci.facts import CgroupDriver
from oci.metrics import described
from shim.doctor import Check, examine
from shim.metrics import available
from shim.trial import try_handler

log = logging.getLogger(__name__)

KUBELET_REALM = "kubelet"
RUN_REALM = "run"

_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.so_reuseport", 0),
]


class Server:
    """Listens from `start` on; until `ready` every call is answered Unavailable."""

    def __init__(self, assembly: Assembly, *, started_at: int) -> None:
        self._assembly = assembly
        self._started_at = started_at
        self._ready_at = 0
        self._servers: list[grpc.aio.Server] = []
        self._cadvisor: CadvisorServer | None = None
        self._doors: list[Door] = []
        images = assembly.images
        self._scrape = Scrape(progress=images.progress, totals=images.pull_totals)
        self._metrics = PlainHttp(self._scrape.answer)
        streaming = assembly.node.settings.streaming
        self._streams = StreamingServer(
            address=streaming.address,
            port=streaming.port,
            limits=Limits(idle=float(streaming.idle_timeout), creation=float(streaming.creation_timeout)),
            tls=_streaming_tls(streaming),
        )

    async def start(self) -> None:
        """Bind every socket. Raises Internal naming the one that cannot be."""
        settings = self._assembly.node.settings
        await self._streams.start()
        self._cadvisor = self._eyes()
        if self._cadvisor is not None:
            await self._cadvisor.start()
        if settings.metrics.address is not None:
            port = await self._metrics.start_tcp(settings.metrics.address, settings.metrics.port)
            log.info("metrics", extra={"address": settings.metrics.address, "port": port})
        kubelet = self._cri(KUBELET_REALM)
        run = self._cri(RUN_REALM)
        admin = grpc.aio.server(options=_OPTIONS)
        bind(
            admin,
            admin_pb2.DESCRIPTOR.services_by_name["Admin"],
            self._admin(),
            door=self._door(),
            unbuilt={},
        )
        for server, paths in (
            (kubelet, settings.listen),
            (run, [settings.run_socket]),
            (admin, [settings.admin_socket]),
        ):
            self._servers.append(server)
            await _listen(server, paths)

    def ready(self) -> None:
        """Recovery is done: serve."""
        self._ready_at = time.time_ns()

    async def stop(self, *, grace: float) -> None:
        """Take nothing new, let calls finish for `grace` seconds, then end them."""
        for door in self._doors:
            door.close()
        await self._streams.stop()
        if self._cadvisor is not None:
            await self._cadvisor.stop()
        await self._metrics.stop()
        for server in self._servers:
            await server.stop(grace)
        self._servers.clear()

    def _door(self) -> Door:
        door = Door(
            not_ready=lambda: "" if self._ready_at else "the daemon compares its records with the machine",
            observer=self._scrape.observe,
        )
        self._doors.append(door)
        return door

    def _cri(self, realm: str) -> grpc.aio.Server:
        parts = self._assembly
        server = grpc.aio.server(options=_OPTIONS)
        report = NodeReport(parts.node, lambda: parts.handlers.table, lambda: parts.reloads.loaded)
        services = cri_pb2.DESCRIPTOR.services_by_name
        runtime = RuntimeService(
            realm=realm,
            pods=parts.pods,
            containers=parts.containers,
            images=parts.images,
            node=report,
            records=parts.node.store,
            streams=self._streams,
            families=described(available(parts.node.host)),
        )
        image = ImageService(images=parts.images, check_handler=parts.handlers.driver)
        for name, service in (("RuntimeService", runtime), ("ImageService", image)):
            bind(server, services[name], service, door=self._door(), unbuilt=UNBUILT)
        return server

    def _eyes(self) -> CadvisorServer | None:
        node, leaves = self._assembly.node, self._assembly.leaves
        path = node.settings.kubelet.cadvisor_socket
        if path is None or leaves is None:
            return None
        return CadvisorServer(
            node, leaves, path, systemd_cgroups=node.host.cgroup.driver is CgroupDriver.SYSTEMD
        )

    def _admin(self) -> AdminService:
        parts = self._assembly
        return AdminService(
            records=parts.node.store,
            paths=parts.node.paths,
            images=parts.images,
            upkeep=parts.images.upkeep,
            handlers=parts.handlers,
            daemon=self._info,
            settings=lambda: explain(parts.reloads.loaded),
            doctor=self._doctor,
        )

    async def _doctor(self, handler: str) -> Sequence[Check]:
        parts = self._assembly
        if handler:
            return await try_handler(parts.node, parts.pods, handler, realm=RUN_REALM)
        return await examine(parts.node, parts.handlers.table)

    def _info(self) -> DaemonInfo:
        settings = self._assembly.node.settings
        return DaemonInfo(
            version=crisp_version(),
            pid=os.getpid(),
            started_at=self._started_at,
            ready_at=self._ready_at,
            state_directory=str(settings.state_dir),
            run_directory=str(settings.run_dir),
            realms={
                KUBELET_REALM: tuple(map(str, settings.listen)),
                RUN_REALM: (str(settings.run_socket),),
            },
            streaming_certificate=self._streams.certificate(),
        )


def _streaming_tls(settings: StreamingSettings) -> Tls | None:
    tls = settings.tls
    if not tls.enabled:
        return None
    return Tls(
        TlsFiles(
            certificate=tls.certificate,
            key=tls.key,
            client_ca=tls.client_ca,
            minimum=tls.minimum_version,
        ),
        address=settings.address,
        today=lambda: datetime.datetime.now(datetime.UTC),
    )


async def _listen(server: grpc.aio.Server, paths: Sequence[Path]) -> None:
    # The socket must never be open to others, not even between bind and chmod.
    mask = os.umask(0o117)
    try:
        for path in paths:
            try:
                server.add_insecure_port(f"unix:{path}")
            except RuntimeError as error:
                raise Internal(f"socket {path}: cannot listen: {error}") from error
        await server.start()
    finally:
        os.umask(mask)
    for path in paths:
        protect(path)
