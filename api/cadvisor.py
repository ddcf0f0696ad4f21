"""The few words of CRI-O's HTTP API that kubelet's cAdvisor asks over a unix socket (facts: container/crio).

`GET /info` and `GET /containers/ID`; anything else is 404, as is what does not run yet: cAdvisor asks again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import h11

from api.sockets import claim, protect
from api.translate import cadvisor as documents
from oci.workload import ContainerId, PodId
from shim.node import Node
from shim.podleaves import PodLeaves
from shim.records import ContainerState

log = logging.getLogger(__name__)

_IDLE = 300.0
"""Seconds that a connection may be silent; cAdvisor keeps one and asks when a container comes."""


class CadvisorServer:
    """Listens from `start` to `stop`. One task a connection; kubelet has one or two."""

    def __init__(self, node: Node, leaves: PodLeaves, path: Path, *, systemd_cgroups: bool) -> None:
        self._node = node
        self._leaves = leaves
        self._path = path
        self._systemd = systemd_cgroups
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Bind the socket. Raises Busy when somebody (CRI-O, most likely) answers there."""
        await asyncio.to_thread(claim, self._path)
        self._server = await asyncio.start_unix_server(self._connected, self._path)
        await asyncio.to_thread(protect, self._path)

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await asyncio.to_thread(self._path.unlink, missing_ok=True)
        self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
            log.debug("a connection of cAdvisor's ended", extra={"error": str(error)})
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER)
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(_IDLE):
                    http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                asked = event
            elif isinstance(event, h11.EndOfMessage):
                status, body = self.answer(
                    asked.method.decode("ascii"), asked.target.decode("ascii", "replace")
                )
                headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
                writer.write(http.send(h11.Response(status_code=status, headers=headers)) or b"")
                writer.write((http.send(h11.Data(data=body)) or b"") + (http.send(h11.EndOfMessage()) or b""))
                await writer.drain()
                if http.our_state is not h11.DONE:
                    return
                http.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return

    def answer(self, method: str, target: str) -> tuple[int, bytes]:
        """Status and JSON for one request."""
        document: dict[str, Any] | None = None
        if method == "GET" and target == "/info":
            root = str(self._node.paths.state_dir)
            document = documents.info(systemd_cgroups=self._systemd, storage_root=root)
        elif method == "GET" and target.startswith("/containers/"):
            document = self._described(target.removeprefix("/containers/"))
        if document is None:
            return 404, b'{"error": "not known, or does not run"}\n'
        return 200, json.dumps(document).encode()

    def _described(self, id_: str) -> dict[str, Any] | None:
        store, paths = self._node.store, self._node.paths
        record = store.containers.get(ContainerId(id_))
        if record is not None:
            pod = store.pods.get(record.pod_id)
            if pod is None or record.process is None or record.state is not ContainerState.RUNNING:
                return None
            image = record.spec.image.user_specified_image or record.spec.image.image
            return documents.container(record, pod, image=image, root=str(paths.container(record.id)))
        pod = store.pods.get(PodId(id_))
        pid = self._leaves.pid(PodId(id_))
        return documents.sandbox(pod, pid=pid) if pod is not None and pid else None
